//! What is stored can be read again, and comes back as it was.

use std::collections::{HashMap, HashSet};

use leftfold::{
    Aggregate, Event, ExecuteError, Snapshot, Store,
    model::{Append, ErrorChain, ExpectedRevision::Any, NewEvent, Position},
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum Reading {
    #[event("Measured")]
    Measured { value: f64, perhaps: Option<f32> },
    #[event("Weighed")]
    Weighed(Vec<f64>),
    #[event("Odd")]
    Odd {
        #[serde(serialize_with = "as_text")]
        number: u8,
    },
}

fn as_text<S: serde::Serializer>(number: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[derive(Default, Debug)]
struct Scale {
    events: Vec<Reading>,
}

impl Aggregate for Scale {
    const CATEGORY: &'static str = "scale";
    type Event = Reading;

    fn apply(&mut self, event: &Reading) {
        self.events.push(event.clone());
    }
}

#[tokio::test]
async fn events_that_could_not_be_read_again_are_not_stored() {
    let store = Store::memory();
    let scales = store.repository::<Scale>();
    for event in [
        Reading::Measured {
            value: f64::NAN,
            perhaps: None,
        },
        Reading::Measured {
            value: f64::INFINITY,
            perhaps: None,
        },
        Reading::Measured {
            value: 0.0,
            perhaps: Some(f32::NAN),
        },
        Reading::Weighed(vec![1.0, f64::NEG_INFINITY]),
        Reading::Odd { number: 7 },
    ] {
        let error = scales.execute("1", |_| event.clone()).await.unwrap_err();
        assert!(
            matches!(error, ExecuteError::Encode(_)),
            "{event:?}: {error}"
        );
    }
    assert_eq!(store.event_store().head().await.unwrap(), Position::START);
    assert_eq!(scales.load("1").await.unwrap().event_count(), 0);
}

/// A percentage that there may be, as a type of its own.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, leftfold::Shape)]
struct Discount(Option<u8>);

/// A default that is there.
fn one() -> Option<u8> {
    Some(1)
}

/// An event whose fields hide in one format that nothing is there.
macro_rules! present {
    ($name:ident, $format:literal) => {
        #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[event(format = $format)]
        enum $name {
            #[event("Boxed")]
            Boxed(Option<Box<Option<u8>>>),
            #[event("Wrapped")]
            Wrapped { discount: Option<Discount> },
            #[event("Unit")]
            Unit { seen: Vec<Option<()>> },
            #[event("Any")]
            Any { value: Option<serde_json::Value> },
            #[event("Renamed")]
            Renamed {
                #[serde(rename(serialize = "one", deserialize = "other"))]
                value: Option<u8>,
            },
            #[event("Defaulted")]
            Defaulted {
                #[serde(default = "one", skip_serializing_if = "Option::is_none")]
                value: Option<u8>,
            },
        }

        impl $name {
            fn lost() -> Vec<Self> {
                let value = Some(serde_json::Value::Null);
                let discount = Some(Discount(None));
                vec![
                    Self::Boxed(Some(Box::new(None))),
                    Self::Wrapped { discount },
                    Self::Unit {
                        seen: vec![None, Some(())],
                    },
                    Self::Any { value },
                    Self::Renamed { value: Some(1) },
                    // It would come back as `Some`.
                    Self::Defaulted { value: None },
                ]
            }

            fn kept() -> Vec<Self> {
                let value = Some(serde_json::json!({ "a": [] }));
                let discount = Some(Discount(Some(5)));
                vec![
                    Self::Boxed(None),
                    Self::Boxed(Some(Box::new(Some(7)))),
                    Self::Wrapped { discount },
                    Self::Unit { seen: vec![None] },
                    Self::Any { value },
                    Self::Renamed { value: None },
                    Self::Defaulted { value: Some(2) },
                ]
            }
        }
    };
}
present!(PresentInJson, "json");
present!(PresentInCbor, "cbor");
present!(PresentInMessagePack, "messagepack");

/// An event with a field that is left out while it is small, and whose default is not.
macro_rules! capped {
    ($name:ident, $format:literal) => {
        #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[event(format = $format)]
        enum $name {
            #[event("Capped")]
            Capped {
                #[serde(skip_serializing_if = "is_small", default = "default_limit")]
                limit: u64,
                owners: HashSet<String>,
                counts: HashMap<String, HashSet<u64>>,
            },
        }

        impl $name {
            fn with(limit: u64) -> Self {
                let owners: HashSet<_> = ["a", "b", "c", "d"].map(str::to_owned).into();
                let count = |owner: &String| (owner.clone(), HashSet::from([1, 2, 3, 4]));
                let counts = owners.iter().map(count).collect();
                Self::Capped {
                    limit,
                    owners,
                    counts,
                }
            }
        }
    };
}
capped!(CappedInJson, "json");
capped!(CappedInCbor, "cbor");
capped!(CappedInMessagePack, "messagepack");

struct Present<E>(Vec<E>);

impl<E> Default for Present<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

macro_rules! aggregate {
    ($events:ident, $category:literal) => {
        impl Aggregate for Present<$events> {
            const CATEGORY: &'static str = $category;
            type Event = $events;

            fn apply(&mut self, event: &$events) {
                self.0.push(event.clone());
            }
        }
    };
}
aggregate!(PresentInJson, "json");
aggregate!(PresentInCbor, "cbor");
aggregate!(PresentInMessagePack, "messagepack");
aggregate!(CappedInJson, "capped_json");
aggregate!(CappedInCbor, "capped_cbor");
aggregate!(CappedInMessagePack, "capped_messagepack");

/// Tries to store each of these events.
async fn store_each<E>(lost: Vec<E>, kept: Vec<E>)
where
    E: Event + Clone + PartialEq + std::fmt::Debug,
    Present<E>: Aggregate<Event = E>,
{
    let store = Store::memory();
    let all = store.repository::<Present<E>>();
    for event in lost {
        let error = all.execute("1", |_| event.clone()).await.unwrap_err();
        assert!(
            matches!(error, ExecuteError::Encode(_)) && error.to_string().contains("None"),
            "{event:?}: {error}"
        );
    }
    for event in &kept {
        all.execute("1", |_| event.clone()).await.unwrap();
    }
    assert_eq!(all.load("1").await.unwrap().into_state().0, kept);
}

#[tokio::test]
async fn events_that_would_come_back_without_a_value_they_have_are_not_stored() {
    store_each(PresentInJson::lost(), PresentInJson::kept()).await;
    store_each(PresentInCbor::lost(), PresentInCbor::kept()).await;
    store_each(PresentInMessagePack::lost(), PresentInMessagePack::kept()).await;
}

/// What hashes is written in another order each time, which changes nothing.
#[tokio::test]
async fn events_of_which_a_field_would_come_back_with_another_value_are_not_stored() {
    macro_rules! store {
        ($name:ident) => {
            let all = Store::memory().repository::<Present<$name>>();
            let error = all.execute("1", |_| $name::with(5)).await.unwrap_err();
            assert!(
                matches!(error, ExecuteError::Encode(_)) && error.to_string().contains("default"),
                "{error}"
            );
            for limit in [10, 20] {
                all.execute("1", |_| $name::with(limit)).await.unwrap();
            }
            let stored = all.load("1").await.unwrap().into_state().0;
            assert_eq!(stored, [10, 20].map($name::with));
        };
    }
    store!(CappedInJson);
    store!(CappedInCbor);
    store!(CappedInMessagePack);
}

#[derive(Event, Serialize, Deserialize, Clone)]
enum Priced {
    #[event("Priced")]
    Priced(Option<u8>),
}

#[derive(Default, Debug, PartialEq, Serialize, Deserialize, Snapshot)]
#[snapshot(every = 1000)]
struct Price {
    discount: Option<Discount>,
}

impl Aggregate for Price {
    const CATEGORY: &'static str = "price";
    type Event = Priced;

    fn apply(&mut self, Priced::Priced(percent): &Priced) {
        self.discount = Some(Discount(*percent));
    }
}

#[tokio::test]
async fn a_state_that_would_come_back_without_a_value_it_has_is_not_kept_as_a_snapshot() {
    let prices = Store::memory().repository::<Price>().with_snapshots();
    for (percent, is_kept) in [(None, false), (Some(5), true)] {
        prices
            .execute("1", |_| Priced::Priced(percent))
            .await
            .unwrap();
        assert_eq!(prices.snapshot("1").await.unwrap(), is_kept);
        let discount = Some(Discount(percent));
        assert_eq!(prices.load("1").await.unwrap().state(), &Price { discount });
    }
}

#[derive(Event, Serialize, Deserialize, Clone)]
enum Sampled {
    #[event("Sampled")]
    Sampled { sum: f64, count: f64 },
}

#[derive(Default, Debug, Serialize, Deserialize, Snapshot)]
#[snapshot(every = 1000)]
struct Average {
    average: Option<f64>,
}

impl Aggregate for Average {
    const CATEGORY: &'static str = "average";
    type Event = Sampled;

    fn apply(&mut self, Sampled::Sampled { sum, count }: &Sampled) {
        self.average = Some(sum / count);
    }
}

#[tokio::test]
async fn a_state_that_would_come_back_as_another_is_not_kept_as_a_snapshot() {
    let averages = Store::memory().repository::<Average>().with_snapshots();
    let sample = |sum| move |_: &Average| Ok::<_, String>(Sampled::Sampled { sum, count: 0.0 });
    averages.execute("1", sample(0.0)).await.unwrap();
    assert!(!averages.snapshot("1").await.unwrap());
    let average = averages.load("1").await.unwrap().into_state().average;
    assert!(average.is_some_and(f64::is_nan), "{average:?}");
}

#[derive(Event, Serialize, Deserialize, Clone)]
enum LimitSet {
    #[event("LimitSet")]
    Set(u64),
}

/// A limit that is left out while it is small, and a default that is not.
#[derive(Debug, PartialEq, Serialize, Deserialize, Snapshot)]
#[snapshot(every = 1000)]
struct Limit {
    #[serde(skip_serializing_if = "is_small", default = "default_limit")]
    limit: u64,
    before: HashSet<u64>,
    counts: HashMap<u64, HashSet<String>>,
}

fn is_small(limit: &u64) -> bool {
    *limit < 10
}

fn default_limit() -> u64 {
    10
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            limit: default_limit(),
            before: HashSet::new(),
            counts: HashMap::new(),
        }
    }
}

impl Aggregate for Limit {
    const CATEGORY: &'static str = "limit";
    type Event = LimitSet;

    fn apply(&mut self, LimitSet::Set(limit): &LimitSet) {
        self.limit = *limit;
        self.before.extend([*limit, *limit + 1, *limit + 2]);
        let names = self.counts.entry(*limit).or_default();
        names.extend(["a", "b", "c"].map(str::to_owned));
    }
}

/// What hashes is written in another order each time, which changes nothing.
#[tokio::test]
async fn a_state_with_a_field_that_is_left_out_is_kept_only_if_its_default_is_what_it_has() {
    let limits = Store::memory().repository::<Limit>().with_snapshots();
    for (limit, is_kept) in [(20, true), (5, false), (10, true)] {
        limits.execute("1", |_| LimitSet::Set(limit)).await.unwrap();
        assert_eq!(limits.snapshot("1").await.unwrap(), is_kept, "{limit}");
        assert_eq!(limits.load("1").await.unwrap().state().limit, limit);
    }
}

#[derive(Event, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
enum Renamed {
    #[event("Plain")]
    Plain { first_name: Option<String> },
    #[event("Tagged")]
    #[serde(rename_all = "UPPERCASE")]
    Tagged {
        #[tag("owner")]
        owner: String,
    },
}

#[test]
fn the_shape_of_an_event_tells_of_renamed_fields_and_of_tags() {
    let plain = Renamed::shape(0);
    assert!(
        plain.contains("rename_all_fields") && plain.contains("camelCase"),
        "{plain}"
    );
    let tagged = Renamed::shape(1);
    for part in ["UPPERCASE", "tag(\"owner\")", "owner:String"] {
        assert!(tagged.contains(part), "{tagged}");
    }
}

#[tokio::test]
async fn an_error_of_a_command_prints_its_reason() {
    let store = Store::memory();
    let scales = store.repository::<Scale>();
    let event = Reading::Weighed(vec![f64::NAN]);
    let error = scales.execute("1", |_| event.clone()).await.unwrap_err();
    for text in [format!("{error}"), format!("{error:?}")] {
        assert!(text.contains("Weighed") && text.contains("NaN"), "{text}");
    }
    let refused = scales
        .execute("1", |_| Err::<(), _>("too heavy"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("too heavy"), "{refused}");
    let invalid = scales.execute("", |_| ()).await.unwrap_err();
    assert!(invalid.to_string().contains("bytes"), "{invalid}");
}

#[tokio::test]
async fn an_error_of_a_load_prints_its_reason_in_both_forms() {
    let store = Store::memory();
    let scales = store.repository::<Scale>();
    let invalid = scales.load("").await.unwrap_err();
    let odd = NewEvent::json("Weighed".try_into().unwrap(), "7");
    let append = Append::to(scales.stream("1").unwrap(), Any, vec![odd]);
    store.event_store().append(append.unwrap()).await.unwrap();
    let undecodable = scales.load("1").await.unwrap_err();
    for (error, reason) in [(invalid, "bytes"), (undecodable, "Weighed")] {
        let chain = ErrorChain(&error).to_string();
        assert!(chain.contains(reason), "{chain}");
        assert_eq!(format!("{error:?}"), chain);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_finite_number_comes_back_as_it_was(bits in any::<u64>(), short in any::<u32>()) {
        let (value, perhaps) = (f64::from_bits(bits), f32::from_bits(short));
        prop_assume!(value.is_finite() && perhaps.is_finite());
        let event = Reading::Measured { value, perhaps: Some(perhaps) };
        let encoded = event.encode().unwrap();
        let data = leftfold::Data::Stored(encoded.content_type, &encoded.data);
        let Ok(Reading::Measured { value: back, perhaps: Some(back_short) }) = Reading::decode(0, data) else {
            panic!("{event:?}")
        };
        prop_assert_eq!((back.to_bits(), back_short.to_bits()), (bits, short));
    }
}
