//! Random histories against a naive model, with restarts and scavenges in between.

use std::{collections::BTreeMap, ops::ControlFlow};

use leftfold_log::{AppendError, Log, ScavengeOptions, Truncation};
use leftfold_model::{
    AppendCondition, Conflict, CurrentRevision, ExpectedRevision, Position, Query, QueryItem, Read,
    RecordedEvent, Revision, StreamName, Tag,
};
use proptest::prelude::*;

use crate::story::{append, directory, open, read, stream};

#[derive(Clone, Debug)]
enum Step {
    Append {
        stream: u8,
        expected: ExpectedRevision,
        count: u8,
        unless: Option<(u8, u8)>,
    },
    Reopen,
    Scavenge {
        stream: u8,
        before: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let expected = prop_oneof![
        4 => Just(ExpectedRevision::Any),
        1 => Just(ExpectedRevision::NoStream),
        1 => Just(ExpectedRevision::StreamExists),
        3 => (0_u64..12).prop_map(|r| ExpectedRevision::Exact(Revision::new(r))),
    ];
    let unless = prop::option::weighted(0.3, (0_u8..7, any::<u8>()));
    let appends =
        (0_u8..4, expected, 1_u8..9, unless).prop_map(|(stream, expected, count, unless)| {
            Step::Append {
                stream,
                expected,
                count,
                unless,
            }
        });
    let scavenges =
        (0_u8..4, 0_u64..30).prop_map(|(stream, before)| Step::Scavenge { stream, before });
    prop_oneof![15 => appends, 1 => Just(Step::Reopen), 1 => scavenges]
}

/// Erases the events of a stream below a revision.
fn scavenge(log: &Log, stream: &StreamName, before: u64) {
    let cut = Truncation {
        stream: stream.clone(),
        before: Revision::new(before),
    };
    let options = ScavengeOptions::default().with_seal_newest();
    let done = log.scavenge(&[cut], options, &mut |_| ControlFlow::Continue(()));
    assert!(done.unwrap().is_finished());
}

/// The first events of each kind of read, and the last.
fn ends(log: &Log, read_of: &Read, limit: u64) -> [Vec<RecordedEvent>; 2] {
    [
        read(log, &read_of.clone().limit(limit)),
        read(log, &read_of.clone().backwards().limit(limit)),
    ]
}

/// The first and the last events of a known list.
fn ends_of(events: &[RecordedEvent], limit: u64) -> [Vec<RecordedEvent>; 2] {
    let limit = usize::try_from(limit).unwrap();
    let last = events.iter().rev().take(limit);
    [
        events.iter().take(limit).cloned().collect(),
        last.cloned().collect(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_give_what_a_naive_model_gives(steps in prop::collection::vec(step(), 1..120)) {
        let directory = directory();
        let mut log = open(&directory);
        let mut heads: BTreeMap<StreamName, u64> = BTreeMap::new();
        let mut stored: Vec<RecordedEvent> = Vec::new();
        let mut cuts: BTreeMap<StreamName, u64> = BTreeMap::new();
        let mut next_id = 0;
        for step in steps {
            let (number, expected, count, unless) = match step {
                Step::Append { stream, expected, count, unless } => (stream, expected, count, unless),
                Step::Reopen => {
                    drop(log);
                    log = open(&directory);
                    continue;
                }
                Step::Scavenge { stream: number, before } => {
                    let name = stream(&format!("s-{number}"));
                    scavenge(&log, &name, before);
                    // What the stream did not have yet was not erased.
                    let before = before.min(heads.get(&name).copied().unwrap_or(0));
                    let cut = cuts.entry(name).or_default();
                    *cut = before.max(*cut);
                    continue;
                }
            };
            let name = stream(&format!("s-{number}"));
            let ids = next_id..next_id + u64::from(count);
            next_id = ids.end;
            let mut request = append(name.as_str(), expected, ids);
            let mut matching = None;
            if let Some((tag, after)) = unless {
                let tag = Tag::new(format!("n:{tag}")).unwrap();
                let after = u64::from(after) % (stored.len() as u64 + 2);
                let query = Query::items([QueryItem::tags([tag.clone()]).unwrap()]).unwrap();
                matching = stored.iter().find(|e| e.position.get() > after && e.tags.contains(&tag)).map(|e| e.position);
                request = request.with_condition(AppendCondition::new(query, Position::new(after))).unwrap();
            }
            let current = CurrentRevision(heads.get(&name).map(|&events| Revision::new(events - 1)));
            match log.append(request) {
                Ok(appended) => {
                    prop_assert!(expected.allows(current) && matching.is_none());
                    prop_assert_eq!(appended.first.get(), stored.len() as u64 + 1);
                    *heads.entry(name).or_default() += u64::from(count);
                    stored.extend(read(&log, &Read::all().from_position(appended.first)));
                    prop_assert_eq!(appended.last.get(), stored.len() as u64);
                }
                Err(AppendError::Conflict(Conflict::WrongRevision { actual, .. })) => {
                    prop_assert!(!expected.allows(current));
                    prop_assert_eq!(actual, current);
                }
                Err(AppendError::Conflict(Conflict::ConditionFailed { position, .. })) => {
                    prop_assert!(expected.allows(current));
                    prop_assert_eq!(Some(position), matching);
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
        stored.retain(|e| e.revision.get() >= cuts.get(&e.stream).copied().unwrap_or(0));
        prop_assert_eq!(read(&log, &Read::all()), stored.clone());
        for limit in [1, 7, 100] {
            prop_assert_eq!(ends(&log, &Read::all(), limit), ends_of(&stored, limit));
        }
        for (name, events) in heads {
            let of_stream = read(&log, &Read::stream(name.clone()));
            let from = cuts.get(&name).copied().unwrap_or(0);
            prop_assert_eq!(of_stream.len() as u64, events - from);
            prop_assert!(of_stream.iter().zip(from..).all(|(e, r)| e.revision == Revision::new(r) && e.stream == name));
            prop_assert_eq!(ends(&log, &Read::stream(name), 3), ends_of(&of_stream, 3));
        }
    }
}
