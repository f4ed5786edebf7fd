//! The judge: what was promised, and whether it holds.
//!
//! **Owns:** [`Judge`]: every acknowledged append, and those whose outcome is open. **Does not know:** disks.
//! **Invariants:** after a recovery the log must be all acknowledged appends, then some first ones of those whose outcome was
//! open, each whole; what has been seen once is acknowledged from then on.

use leftfold_model::{Append, Position, RecordedEvent, Revision, StreamName};

/// A broken promise, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What must be in the log.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    acked: Vec<RecordedEvent>,
    open: Vec<Append>,
}

impl Judge {
    /// How many events must be there.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.len() as u64
    }

    /// An append was acknowledged: its events stand behind all others.
    ///
    /// # Errors
    /// [`Broken`] if the log gave it another place.
    pub fn acknowledged(
        &mut self,
        append: &Append,
        first: Position,
        last: Position,
    ) -> Result<(), Broken> {
        let expected = Position::new(self.acked()).next();
        let end = expected.plus(append.event_count() as u64).previous();
        if (first, last) != (expected, end) {
            return Err(Broken(format!(
                "acknowledged at {first} to {last}, not at {expected} to {end}"
            )));
        }
        self.take(append);
        Ok(())
    }

    /// The outcome of an append is open: it may be there or not.
    pub fn left_open(&mut self, append: Append) {
        self.open.push(append);
    }

    fn take(&mut self, append: &Append) {
        for write in append.writes() {
            for event in &write.events {
                let revision = Revision::new(self.events_of(&write.stream));
                self.acked.push(RecordedEvent {
                    position: Position::new(self.acked()).next(),
                    stream: write.stream.clone(),
                    revision,
                    id: event.id(),
                    event_type: event.event_type().clone(),
                    content_type: event.content_type(),
                    data: event.data().clone(),
                    metadata: event.metadata().clone(),
                    tags: event.tags().to_vec(),
                    time: event.time().unwrap_or_default(),
                });
            }
        }
    }

    fn events_of(&self, stream: &StreamName) -> u64 {
        self.acked
            .iter()
            .filter(|event| event.stream == *stream)
            .count() as u64
    }

    /// The log was recovered and holds these events.
    ///
    /// # Errors
    /// [`Broken`] if an acknowledged event is lost or changed, or an open append is there in part or out of order.
    pub fn recovered(&mut self, events: &[RecordedEvent]) -> Result<(), Broken> {
        for append in std::mem::take(&mut self.open) {
            if events.len() <= self.acked.len() {
                break;
            }
            self.take(&append);
        }
        self.holds(events)
    }

    /// The log holds these events.
    ///
    /// # Errors
    /// [`Broken`] if they are not exactly those acknowledged.
    pub fn holds(&self, events: &[RecordedEvent]) -> Result<(), Broken> {
        for (expected, found) in self.acked.iter().zip(events) {
            // The recorded time is the store's own.
            if (RecordedEvent {
                time: expected.time,
                ..found.clone()
            }) != *expected
            {
                return Err(Broken(format!(
                    "event {} is {found:?}, not {expected:?}",
                    expected.position
                )));
            }
        }
        if events.len() != self.acked.len() {
            return Err(Broken(format!(
                "{} events are there, {} were acknowledged",
                events.len(),
                self.acked.len()
            )));
        }
        Ok(())
    }

    /// The acknowledged events of a stream.
    pub fn stream(&self, stream: &StreamName) -> impl Iterator<Item = &RecordedEvent> {
        self.acked
            .iter()
            .filter(move |event| event.stream == *stream)
    }
}
