//! Random histories against a naive model, with restarts in between.

use std::collections::BTreeMap;

use leftfold_log::AppendError;
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
    prop_oneof![15 => appends, 1 => Just(Step::Reopen)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_give_what_a_naive_model_gives(steps in prop::collection::vec(step(), 1..120)) {
        let directory = directory();
        let mut log = open(&directory);
        let mut heads: BTreeMap<StreamName, u64> = BTreeMap::new();
        let mut stored: Vec<RecordedEvent> = Vec::new();
        let mut next_id = 0;
        for step in steps {
            let Step::Append { stream: number, expected, count, unless } = step else {
                drop(log);
                log = open(&directory);
                continue;
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
        prop_assert_eq!(read(&log, &Read::all()), stored.clone());
        for (name, events) in heads {
            let of_stream = read(&log, &Read::stream(name.clone()));
            prop_assert_eq!(of_stream.len() as u64, events);
            prop_assert!(of_stream.iter().zip(0..).all(|(e, r)| e.revision == Revision::new(r) && e.stream == name));
        }
    }
}
