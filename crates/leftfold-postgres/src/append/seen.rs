//! What this process knows of streams without asking.
//!
//! **Owns:** [`Seen`]: the head after our last group, and the streams that our groups wrote. **Does not know:** the database.
//! **Invariants:** of use only while the log ends where our last group ended: positions are dense, so then nobody else has
//! written; the database compares, under the lock; forgotten whenever a connection failed, since the next one may lead to
//! another server; bounded.

use std::collections::HashMap;

use leftfold_model::{Appended, Conflict, Position, StreamName};

use crate::value::place;

/// Streams that are remembered; then it begins anew.
const STREAMS_MAX: usize = 65_536;

/// The head after our last group, and the revisions that streams had then.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    head: Option<Position>,
    revisions: HashMap<StreamName, i64>,
}

impl Seen {
    pub(crate) fn head(&self) -> Option<i64> {
        self.head.map(|head| place(head.get()))
    }

    pub(crate) fn revision(&self, stream: &StreamName) -> Option<i64> {
        self.revisions.get(stream).copied()
    }

    /// Takes in what a group did to a log that ended at `before`.
    pub(crate) fn note(&mut self, before: Position, outcomes: &[Result<Appended, Conflict>]) {
        if self.head != Some(before) || self.revisions.len() > STREAMS_MAX {
            self.revisions.clear();
        }
        let mut head = before;
        for appended in outcomes.iter().flatten().filter(|done| !done.repeated) {
            head = head.max(appended.last);
            for (stream, revision) in &appended.streams {
                self.revisions.insert(stream.clone(), place(revision.get()));
            }
        }
        self.head = Some(head);
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leftfold_model::Revision;

    fn appended(first: u64, stream: &StreamName, revision: u64) -> Result<Appended, Conflict> {
        let position = Position::new(first);
        let streams = vec![(stream.clone(), Revision::new(revision))];
        Ok(Appended {
            first: position,
            last: position,
            streams,
            repeated: false,
        })
    }

    #[test]
    fn streams_are_known_until_somebody_else_writes() {
        let (a, b) = (StreamName::new("a").unwrap(), StreamName::new("b").unwrap());
        let mut seen = Seen::default();
        seen.note(Position::new(4), &[appended(5, &a, 2)]);
        seen.note(Position::new(5), &[appended(6, &b, 0)]);
        assert_eq!(
            (seen.head(), seen.revision(&a), seen.revision(&b)),
            (Some(6), Some(2), Some(0))
        );
        seen.note(Position::new(7), &[appended(8, &b, 1)]);
        assert_eq!(
            (seen.head(), seen.revision(&a), seen.revision(&b)),
            (Some(8), None, Some(1))
        );
    }
}
