//! Random histories, compared with the store in memory.
//!
//! **Owns:** the rule that any store returns what the store in memory returns. **Does not know:** the store under test.
//! **Invariants:** the seed is printed when the rule fails, and taken from `LEFTFOLD_SEED`.

use std::sync::Arc;

use leftfold_model::{
    Append, AppendCondition, ExpectedRevision, Position, Query, Read, RecordedEvent, Revision,
    StreamWrite,
};

use super::{
    Fixture,
    fixtures::{Store, exact, of_tags, of_types, read, stream, tagged},
};
use crate::MemoryStore;

/// Draws of appends and reads.
struct Draws(fastrand::Rng);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }

    fn append(&mut self, head: u64, earlier: &[Append]) -> Append {
        if !earlier.is_empty() && self.below(6) == 0 {
            return earlier[usize::try_from(self.below(earlier.len() as u64)).unwrap()].clone();
        }
        let writes = (0..=self.below(2)).map(|_| {
            let expected = match self.below(6) {
                0 => ExpectedRevision::NoStream,
                1 => ExpectedRevision::StreamExists,
                2 => exact(self.below(12)),
                _ => ExpectedRevision::Any,
            };
            let events = (0..=self.below(3)).map(|_| {
                tagged(
                    &format!("T{}", self.below(3)),
                    &[
                        &format!("x:{}", self.below(4)),
                        &format!("y:{}", self.below(3)),
                    ],
                )
            });
            let events = events.collect();
            StreamWrite {
                stream: stream(&format!("c{}-{}", self.below(2), self.below(3))),
                expected,
                events,
            }
        });
        let append = Append::new(writes.collect(), vec![]).unwrap();
        if self.below(3) > 0 {
            return append;
        }
        let after = Position::new(self.below(head + 2));
        append
            .with_condition(AppendCondition::new(self.query(), after))
            .unwrap()
    }

    fn query(&mut self) -> Query {
        match self.below(5) {
            0 => Query::All,
            1 => of_types(&[&format!("T{}", self.below(4))]),
            2 => of_tags(&[
                &format!("x:{}", self.below(5)),
                &format!("y:{}", self.below(3)),
            ]),
            _ => of_tags(&[&format!("x:{}", self.below(5))]),
        }
    }

    fn read(&mut self, head: u64) -> Read {
        let mut wanted = match self.below(3) {
            0 => Read::all(),
            1 => Read::category(stream(&format!("c{}-0", self.below(3))).category()),
            _ => Read::stream(stream(&format!("c{}-{}", self.below(2), self.below(4)))),
        };
        wanted.query = self.query();
        wanted = match self.below(3) {
            0 => wanted.from_position(Position::new(self.below(head + 3))),
            1 if matches!(wanted.scope, leftfold_model::Scope::Stream(_)) => {
                wanted.from_revision(Revision::new(self.below(20)))
            }
            _ => wanted,
        };
        if self.below(2) == 0 {
            wanted = wanted.backwards();
        }
        if self.below(2) == 0 {
            wanted.limit(self.below(9))
        } else {
            wanted
        }
    }
}

/// The store's own recorded times differ; everything else must not.
fn timeless(events: Vec<RecordedEvent>) -> Vec<RecordedEvent> {
    events
        .into_iter()
        .map(|event| RecordedEvent {
            time: Default::default(),
            ..event
        })
        .collect()
}

pub async fn random_histories_equal_those_of_the_store_in_memory(fixture: &impl Fixture) {
    let seed = std::env::var("LEFTFOLD_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    for seed in seed.map_or(0..12, |seed: u64| seed..seed + 1) {
        let (store, model): (Store, Store) = (fixture.open().await, Arc::new(MemoryStore::new()));
        let mut draws = Draws(fastrand::Rng::with_seed(seed));
        let mut earlier = Vec::new();
        for _ in 0..60 {
            let head = model.head().await.unwrap().get();
            let append = draws.append(head, &earlier);
            let (ours, theirs) = (
                store.append(append.clone()).await,
                model.append(append.clone()).await,
            );
            assert_eq!(
                format!("{ours:?}"),
                format!("{theirs:?}"),
                "LEFTFOLD_SEED={seed}: {append:?}"
            );
            if ours.is_ok() {
                earlier.push(append);
            }
            let wanted = draws.read(head);
            let (ours, theirs) = (
                read(&store, wanted.clone()).await,
                read(&model, wanted.clone()).await,
            );
            assert_eq!(
                timeless(ours),
                timeless(theirs),
                "LEFTFOLD_SEED={seed}: {wanted:?}"
            );
        }
    }
}
