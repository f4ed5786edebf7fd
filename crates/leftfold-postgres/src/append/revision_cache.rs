//! A cache of stream revisions, valid for one head of the log.
//!
//! **Owns:** [`RevisionCache`]: the head after the last group of this process, and the revisions of streams it wrote.
//! **Does not know:** the database.
//! **Invariants:** an entry is valid only at the head it was recorded at. Positions are dense, so an equal head proves that
//! no other process has appended; the database compares heads under the lock. The cache is cleared when a connection fails,
//! because the next one may lead to another server. It is bounded.

use std::collections::HashMap;

use leftfold_model::{Append, ExpectedRevision, Position, StreamName};

use super::response::Decision;
use crate::value::to_bigint;

/// Maximum number of streams. A cache that grows larger is cleared.
const STREAMS_MAX: usize = 65_536;

/// The head after the last group, and the revisions of streams at that head.
#[derive(Debug, Default)]
pub(crate) struct RevisionCache {
    head: Option<Position>,
    revisions: HashMap<StreamName, i64>,
}

impl RevisionCache {
    pub(crate) fn head(&self) -> Option<i64> {
        self.head.map(|head| to_bigint(head.get()))
    }

    pub(crate) fn revision(&self, stream: &StreamName) -> Option<i64> {
        self.revisions.get(stream).copied()
    }

    /// Records what was decided about a group on a log whose head was `before`.
    pub(crate) fn record(&mut self, before: Position, appends: &[Append], decisions: &[Decision]) {
        if self.head != Some(before) || self.revisions.len() > STREAMS_MAX {
            self.revisions.clear();
        }
        let mut head = before;
        let decided = appends.iter().zip(decisions);
        let accepted =
            decided.filter_map(|(append, decision)| Some((append, decision.appended()?)));
        for (append, appended) in accepted.filter(|(_, appended)| !appended.repeated) {
            head = head.max(appended.last);
            // A check that held proves the revision of its stream before the append.
            for check in append.checks() {
                let revision = match check.expected {
                    ExpectedRevision::NoStream => -1,
                    ExpectedRevision::Exact(revision) => to_bigint(revision.get()),
                    ExpectedRevision::Any | ExpectedRevision::StreamExists => continue,
                };
                self.revisions.insert(check.stream.clone(), revision);
            }
            for (stream, revision) in &appended.streams {
                self.revisions
                    .insert(stream.clone(), to_bigint(revision.get()));
            }
        }
        self.head = Some(head);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leftfold_model::{Appended, EventType, NewEvent, Revision};

    fn append(stream: &StreamName) -> Append {
        let event = NewEvent::json(EventType::new("T").unwrap(), "{}");
        Append::to(stream.clone(), ExpectedRevision::Any, vec![event]).unwrap()
    }

    fn appended(first: u64, stream: &StreamName, revision: u64) -> Decision {
        let position = Position::new(first);
        let streams = vec![(stream.clone(), Revision::new(revision))];
        Decision::Made(Ok(Appended {
            first: position,
            last: position,
            streams,
            repeated: false,
        }))
    }

    #[test]
    fn streams_are_known_until_somebody_else_writes() {
        let (a, b) = (StreamName::new("a").unwrap(), StreamName::new("b").unwrap());
        let mut cache = RevisionCache::default();
        cache.record(Position::new(4), &[append(&a)], &[appended(5, &a, 2)]);
        cache.record(Position::new(5), &[append(&b)], &[appended(6, &b, 0)]);
        assert_eq!(
            (cache.head(), cache.revision(&a), cache.revision(&b)),
            (Some(6), Some(2), Some(0))
        );
        cache.record(Position::new(7), &[append(&b)], &[appended(8, &b, 1)]);
        assert_eq!(
            (cache.head(), cache.revision(&a), cache.revision(&b)),
            (Some(8), None, Some(1))
        );
    }

    #[test]
    fn a_check_that_held_tells_a_revision_and_a_write_behind_it_a_newer_one() {
        let names = ["a", "b", "c"].map(|name| StreamName::new(name).unwrap());
        let [a, b, c] = &names;
        let held = [
            (a, ExpectedRevision::Exact(Revision::new(1))),
            (b, ExpectedRevision::NoStream),
            (c, ExpectedRevision::StreamExists),
        ];
        let checked = held.into_iter().fold(append(a), |append, (stream, held)| {
            append.with_check(stream.clone(), held).unwrap()
        });
        let mut cache = RevisionCache::default();
        cache.record(Position::new(4), &[checked], &[appended(5, a, 2)]);
        assert_eq!(
            names.each_ref().map(|name| cache.revision(name)),
            [Some(2), Some(-1), None]
        );
    }
}
