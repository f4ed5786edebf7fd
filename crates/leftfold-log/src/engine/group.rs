//! Groups: appends that become durable by one write and one sync.
//!
//! **Owns:** [`Group`], how it is written, and how it answers its callers.
//! **Does not know:** how appends were decided, which thread writes when.
//! **Invariants:** a caller gets its answer only after the sync that covers it. That includes rejections, because they may
//! depend on appends of the same group. A group that is dropped unfinished answers "outcome unknown" to its callers.

use std::sync::{Arc, atomic::Ordering};

use leftfold_model::{Appended, Conflict, Position};

use super::{error::AppendError, queue::Answer, shared::EngineState, sync::OnceLock};
use crate::{
    disk::{DiskFile, FileName},
    error::StorageError,
    planted::{self, Planted},
    read::TouchedTerms,
};

/// The outcome of an append, if its group becomes durable.
pub(crate) type Outcome = Result<Appended, AppendError>;

/// Maximum bytes of a buffer that is reused for the next group.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a group did not become durable.
#[derive(Clone, Debug)]
pub(crate) enum GroupError {
    /// The disk failed while it was being written.
    Failed(Arc<StorageError>),
    /// The disk had failed before: nothing of it was written.
    NotWritten(Arc<StorageError>),
    /// The thread that held it is gone.
    Abandoned,
}

impl GroupError {
    /// Returns the outcome of an append of the group.
    fn answer(&self, decided: Outcome) -> Outcome {
        let (cause, tried) = match self {
            Self::Failed(cause) => (cause, true),
            Self::NotWritten(cause) => (cause, false),
            Self::Abandoned => return Err(AppendError::WriterLost),
        };
        let cause = Arc::clone(cause);
        match decided {
            // What a repetition repeats may be in the group that failed.
            Ok(appended) if tried || appended.repeated => Err(AppendError::Poisoned { cause }),
            Err(AppendError::Conflict(Conflict::PartlyStored { .. })) => {
                Err(AppendError::Poisoned { cause })
            }
            _ => Err(AppendError::ReadOnly { cause }),
        }
    }
}

/// The end of a group, for any number of threads to wait for.
#[derive(Debug, Default)]
pub(crate) struct GroupCompletion(OnceLock<Result<(), GroupError>>);

impl GroupCompletion {
    /// Blocks until the group is durable or failed, and returns the outcome of `decided`.
    pub(crate) fn wait(&self, decided: Outcome) -> Outcome {
        settled(self.0.wait(), decided)
    }
}

fn settled(end: &Result<(), GroupError>, decided: Outcome) -> Outcome {
    match end {
        Ok(()) => decided,
        Err(lost) => lost.answer(decided),
    }
}

/// Appends that are decided and will become durable together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Their frames.
    pub(crate) bytes: Vec<u8>,
    /// The terms of its events, by which followers are notified.
    pub(crate) touched: TouchedTerms,
    waiting: usize,
    tickets: Vec<(Answer, Outcome)>,
    done: Arc<GroupCompletion>,
    place: Option<WriteTarget>,
}

/// Where a group is written, and the position of its last event.
#[derive(Debug)]
pub(crate) struct WriteTarget {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) name: FileName,
    pub(crate) at: u64,
    pub(crate) head: Position,
}

impl Group {
    /// Creates a group that reuses the buffer of an older one.
    pub(crate) fn reusing(mut bytes: Vec<u8>, touched: TouchedTerms) -> Self {
        bytes.clear();
        bytes.shrink_to(KEPT_BYTES_MAX);
        let mut group = Self::default();
        group.bytes = bytes;
        group.touched = touched;
        group
    }

    /// Returns how many callers wait for it.
    pub(crate) fn members(&self) -> usize {
        self.waiting + self.tickets.len()
    }

    /// Returns whether the group has no bytes and no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.members() == 0
    }

    /// Adds a caller that will block.
    pub(crate) fn join(&mut self) -> Arc<GroupCompletion> {
        self.waiting += 1;
        Arc::clone(&self.done)
    }

    /// Adds a caller that holds a ticket.
    pub(crate) fn join_async(&mut self, answer: Answer, outcome: Outcome) {
        self.tickets.push((answer, outcome));
    }

    /// Sets where the group is written. Nothing may be added afterwards.
    pub(crate) fn set_target(&mut self, place: WriteTarget) {
        self.place = Some(place);
    }

    /// Writes the group, syncs it, and publishes it to readers. Nothing else may write to the log meanwhile.
    pub(crate) fn write(&self, shared: &EngineState) -> Result<(), GroupError> {
        let Some(place) = self.place.as_ref() else {
            return Err(GroupError::Abandoned);
        };
        if planted::is(Planted::PublishedBeforeSync) {
            shared.publish(place.head, &self.touched);
        }
        if !self.bytes.is_empty() {
            let written = self.write_and_sync(place);
            shared.syncs.fetch_add(1, Ordering::Relaxed);
            let bytes = self.bytes.len() as u64;
            shared.bytes.fetch_add(bytes, Ordering::Relaxed);
            written.map_err(|error| GroupError::Failed(Arc::new(error)))?;
        }
        let appends = self.members() as u64;
        shared.appends.fetch_add(appends, Ordering::Relaxed);
        shared.publish(place.head, &self.touched);
        Ok(())
    }

    fn write_and_sync(&self, place: &WriteTarget) -> Result<(), StorageError> {
        let written = place.file.write_all_at(&self.bytes, place.at);
        written.map_err(|e| StorageError::io("write", &place.name, e))?;
        if planted::is(Planted::AckBeforeSync) {
            return Ok(());
        }
        let mut synced = place.file.sync_data();
        if synced.is_err() && planted::is(Planted::FailedSyncRetried) {
            synced = place.file.sync_data();
        }
        synced.map_err(|e| StorageError::io("sync", &place.name, e))
    }

    /// Takes the buffer of the frames, once they are written.
    pub(crate) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Sends the outcomes to all callers that wait.
    pub(crate) fn finish(mut self, end: Result<(), GroupError>) {
        self.end(end);
    }

    fn end(&mut self, end: Result<(), GroupError>) {
        for (answer, decided) in self.tickets.drain(..) {
            // A caller who does not wait any more need not know.
            let _ = answer.send(settled(&end, decided));
        }
        let _ = self.done.0.set(end);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.done.0.get().is_none() {
            self.end(Err(GroupError::Abandoned));
        }
    }
}

#[cfg(test)]
mod tests {
    use leftfold_model::EventId;

    use super::*;

    fn outcome(repeated: bool) -> Outcome {
        Ok(Appended {
            first: Position::FIRST,
            last: Position::FIRST,
            streams: Vec::new(),
            repeated,
        })
    }

    fn conflict() -> Outcome {
        Err(AppendError::Conflict(Conflict::ConditionFailed {
            condition: 0,
            position: Position::FIRST,
        }))
    }

    fn partly_stored() -> Outcome {
        Err(AppendError::Conflict(Conflict::PartlyStored {
            id: EventId::from_bytes([1; 16]),
            position: Position::FIRST,
        }))
    }

    #[test]
    fn a_lost_group_says_certainly_not_written_only_where_that_is_certain() {
        let cause = || {
            Arc::new(StorageError::directory(
                "sync",
                std::io::ErrorKind::Other.into(),
            ))
        };
        let certain = |lost: &GroupError, decided| {
            lost.answer(decided)
                .unwrap_err()
                .is_definitely_not_written()
        };
        let failed = GroupError::Failed(cause());
        assert!(!certain(&failed, outcome(false)));
        assert!(!certain(&failed, outcome(true)));
        assert!(certain(&failed, conflict()));
        let not_written = GroupError::NotWritten(cause());
        assert!(certain(&not_written, outcome(false)));
        assert!(
            !certain(&not_written, outcome(true)),
            "what it repeats may have been written"
        );
        assert!(certain(&not_written, conflict()));
        assert!(
            !certain(&not_written, partly_stored()),
            "the part may have been written"
        );
        assert!(!certain(&GroupError::Abandoned, outcome(false)));
    }

    #[test]
    fn a_group_that_is_dropped_tells_those_who_wait() {
        let mut group = Group::default();
        let done = group.join();
        drop(group);
        assert!(matches!(
            done.wait(outcome(false)),
            Err(AppendError::WriterLost)
        ));
    }
}
