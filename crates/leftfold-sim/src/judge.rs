//! The judge: what was promised, and whether it holds.
//!
//! **Owns:** [`Judge`]: every acknowledged append, and those whose outcome is open. **Does not know:** disks.
//! **Invariants:** after a recovery the log must be all acknowledged appends, then some first ones of those whose outcome was
//! open, each whole; what has been seen once is acknowledged from then on; what lies under a cut may be missing, and must
//! be once a scavenge said so; nothing else may.

use leftfold_log::Cut;
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
    cuts: Vec<Erased>,
}

/// Events of a stream that scavenging was told to erase.
#[derive(Clone, Debug)]
struct Erased {
    cut: Cut,
    /// Those up to here are certainly gone.
    through: Position,
}

impl Erased {
    fn covers(&self, event: &RecordedEvent) -> bool {
        event.stream == self.cut.stream && event.revision < self.cut.before
    }
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

    /// What lies under these cuts may be missing from now on.
    pub fn may_erase(&mut self, cuts: &[Cut]) {
        let through = Position::START;
        let cuts = cuts.iter().cloned();
        self.cuts.extend(cuts.map(|cut| Erased { cut, through }));
    }

    /// What lies under these cuts is gone from now on, up to `through`.
    pub fn erased(&mut self, cuts: &[Cut], through: Position) {
        let cuts = cuts.iter().cloned();
        self.cuts.extend(cuts.map(|cut| Erased { cut, through }));
    }

    /// The cuts it was told of.
    #[must_use]
    pub fn cuts(&self) -> Vec<Cut> {
        self.cuts.iter().map(|erased| erased.cut.clone()).collect()
    }

    /// The log was recovered, its head is here, and it holds these events.
    ///
    /// # Errors
    /// [`Broken`] if an acknowledged event is lost or changed, or an open append is there in part or out of order.
    pub fn recovered(&mut self, head: Position, events: &[RecordedEvent]) -> Result<(), Broken> {
        for append in std::mem::take(&mut self.open) {
            if head.get() <= self.acked() {
                break;
            }
            self.take(&append);
        }
        if head.get() != self.acked() {
            return Err(Broken(format!(
                "the head is {head}, {} were acknowledged",
                self.acked()
            )));
        }
        self.holds(events)
    }

    /// The log holds these events.
    ///
    /// # Errors
    /// [`Broken`] if they are not exactly those acknowledged.
    pub fn holds(&self, events: &[RecordedEvent]) -> Result<(), Broken> {
        self.compare(self.acked.iter(), events)
    }

    /// The log holds these events of a stream.
    ///
    /// # Errors
    /// [`Broken`] if they are not exactly those acknowledged.
    pub fn stream_holds(
        &self,
        stream: &StreamName,
        events: &[RecordedEvent],
    ) -> Result<(), Broken> {
        let of_stream = self.acked.iter().filter(|event| event.stream == *stream);
        self.compare(of_stream, events)
    }

    fn compare<'a>(
        &self,
        expected: impl Iterator<Item = &'a RecordedEvent>,
        events: &[RecordedEvent],
    ) -> Result<(), Broken> {
        let mut found = events.iter().peekable();
        for expected in expected {
            let mut cuts = self.cuts.iter().filter(|erased| erased.covers(expected));
            let Some(found) = found.next_if(|found| found.position == expected.position) else {
                if cuts.next().is_some() {
                    continue;
                }
                return Err(Broken(format!("event {} is missing", expected.position)));
            };
            if cuts.any(|erased| expected.position <= erased.through) {
                return Err(Broken(format!("event {} is not erased", expected.position)));
            }
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
        match found.next() {
            Some(more) => Err(Broken(format!(
                "event {} of {} is there, {} were acknowledged",
                more.position,
                more.stream,
                self.acked.len()
            ))),
            None => Ok(()),
        }
    }
}
