//! A read that takes its time while the log changes.
//!
//! **Owns:** [`HeldCursor`]: a cursor that is held across appends, maintenance and scavenges, and what it must still return.
//! **Does not know:** which step of a run comes next.
//! **Invariants:** a cursor returns the log as of its beginning, whatever was sealed, merged, rewritten and removed since; only
//! events that were truncated meanwhile may be missing.

use leftfold_log::Cursor;
use leftfold_model::{ErrorChain, Position, Read, RecordedEvent};

use super::Simulation;
use crate::Violation;

/// See the module.
#[derive(Debug)]
pub(super) struct HeldCursor {
    cursor: Cursor,
    head: Position,
    events: Vec<RecordedEvent>,
}

impl Simulation {
    /// Begins a read of everything, to be continued by [`Self::advance_cursor`] in later steps.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn hold_cursor(&mut self) -> Result<(), Violation> {
        self.open()?;
        let Some(core) = &self.core else {
            return Ok(());
        };
        let fault = self.disk.suspend_fault();
        let cursor = core.reader().read(&Read::all());
        self.disk.fail(fault);
        // One event a batch: a segment is looked up for each.
        let cursor = cursor.map_err(|error| unreadable(&error))?;
        self.held = Some(HeldCursor {
            cursor: cursor.with_batch_bytes(1),
            head: core.reader().head(),
            events: Vec::new(),
        });
        Ok(())
    }

    /// Reads some events with the cursor that is held, and compares all of its events at its end.
    ///
    /// # Errors
    /// [`Violation`] if they cannot be read, or are not those of its beginning.
    pub fn advance_cursor(&mut self, batches: u64) -> Result<(), Violation> {
        if self.disk.is_crashed() {
            return Ok(());
        }
        let Some(mut held) = self.held.take() else {
            return Ok(());
        };
        let fault = self.disk.suspend_fault();
        let read = held.advance(batches);
        self.disk.fail(fault);
        if read? {
            return self.oracle.check_prefix(held.head, &held.events);
        }
        self.held = Some(held);
        Ok(())
    }
}

impl HeldCursor {
    /// Reads at most this many batches; `true` at the end.
    fn advance(&mut self, batches: u64) -> Result<bool, Violation> {
        for _ in 0..batches {
            match self.cursor.next_batch() {
                Ok(Some(events)) => self.events.extend(events),
                Ok(None) => return Ok(true),
                Err(error) => return Err(unreadable(&error)),
            }
        }
        Ok(false)
    }
}

fn unreadable(error: &leftfold_log::ReadError) -> Violation {
    let error = ErrorChain(error);
    Violation(format!("a cursor that was held cannot read: {error}"))
}
