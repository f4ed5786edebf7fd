//! Where the events of an append will be, if nothing comes between.
//!
//! **Owns:** [`Places`]: an append's events as they will be recorded, and whether that came true.
//! **Does not know:** databases, projections.
//! **Invariants:** a place is used only if the append is then found exactly there.

use std::collections::BTreeMap;

use leftfold_model::{
    Append, Appended, ModelError, Position, RecordedEvent, Revision, StreamName, StreamWrite,
    Timestamp,
};
use leftfold_store::LogEnd;

/// The streams that an append writes, each once.
pub(super) fn streams(append: &Append) -> Vec<StreamName> {
    let mut streams: Vec<StreamName> = Vec::new();
    for write in append.writes() {
        if !streams.contains(&write.stream) {
            streams.push(write.stream.clone());
        }
    }
    streams
}

/// The events of an append, where they will be.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) events: Vec<RecordedEvent>,
    first: Position,
    /// The revision of the last event of each write.
    last: Vec<(StreamName, Revision)>,
}

impl Places {
    /// Returns the places behind an end of the log; `streams` are those of [`LogEnd::revisions`].
    pub(super) fn behind(end: &LogEnd, streams: &[StreamName], append: &Append) -> Self {
        let ends = streams.iter().zip(&end.revisions);
        let mut next: BTreeMap<&StreamName, Revision> = ends
            .map(|(stream, last)| (stream, last.0.map_or(Revision::FIRST, Revision::next)))
            .collect();
        let first = end.head.next();
        let mut position = first;
        let (mut events, mut last) = (Vec::new(), Vec::new());
        for write in append.writes() {
            let revision = next.entry(&write.stream).or_insert(Revision::FIRST);
            for event in &write.events {
                events.push(RecordedEvent {
                    position,
                    stream: write.stream.clone(),
                    revision: *revision,
                    id: event.id(),
                    event_type: event.event_type().clone(),
                    content_type: event.content_type(),
                    data: event.data().clone(),
                    metadata: event.metadata().clone(),
                    tags: event.tags().to_vec(),
                    time: event.time().unwrap_or(end.time),
                });
                position = position.next();
                *revision = revision.next();
            }
            let newest = events
                .last()
                .map_or(Revision::FIRST, |event| event.revision);
            last.push((write.stream.clone(), newest));
        }
        Self {
            events,
            first,
            last,
        }
    }

    /// Returns whether the append was written at these places.
    pub(super) fn are_those_of(&self, appended: &Appended) -> bool {
        appended.first == self.first && appended.streams == self.last
    }

    pub(super) fn last(&self) -> Position {
        self.events
            .last()
            .map_or(self.first, |event| event.position)
    }
}

/// Returns an append whose events are recorded at this time, unless they have one of their own.
pub(super) fn with_time(append: Append, time: Timestamp) -> Result<Append, ModelError> {
    let (writes, checks, conditions) = append.into_parts();
    let timed = |write: StreamWrite| StreamWrite {
        events: write
            .events
            .into_iter()
            .map(|event| match event.time() {
                Some(_) => event,
                None => event.with_time(time),
            })
            .collect(),
        ..write
    };
    Append::new(writes.into_iter().map(timed).collect(), conditions)?.with_checks(checks)
}
