//! Old events, read by a newer program.

use std::collections::BTreeMap;

use leftfold::{
    Aggregate, DecodeError, Event, LoadError, Recorded, Store, UpcastError, UpcastEvent, Upcasters,
    model::{Append, EventType, ExpectedRevision, NewEvent, Read, Revision, StreamName},
    testing::EventsLock,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Event, Serialize, Deserialize, Debug, PartialEq, Clone)]
#[event(upcast = history)]
enum Now {
    #[event("DepositMade", version = 3)]
    DepositMade { cents: u64, currency: String },
    #[event("OwnerNamed")]
    OwnerNamed { first: String },
    #[event("FamilyNamed")]
    FamilyNamed { last: String },
}

fn history() -> Upcasters {
    Upcasters::new()
        .rename("MoneyPaidIn", "DepositMade")
        .change("DepositMade", 1, |data| data["currency"] = "EUR".into())
        .split("DepositMade", 2, |old| {
            let amount = old.data["amount"]
                .as_u64()
                .ok_or("amount is not a number")?;
            let data = json!({ "cents": amount * 100, "currency": old.data["currency"] });
            Ok(vec![UpcastEvent::new("DepositMade", 3, data)])
        })
        .drop("StatementPrinted", 1)
        .split("CustomerNamed", 1, |old| {
            let name = old.data["name"].as_str().ok_or("name is not a text")?;
            let (first, last) = name.split_once(' ').ok_or("name has one part")?;
            Ok(vec![
                UpcastEvent::new("OwnerNamed", 1, json!({ "first": first })),
                UpcastEvent::new("FamilyNamed", 1, json!({ "last": last })),
            ])
        })
        .split("Panics", 1, |_| panic!("no such thing"))
        .rename("Ping", "Pong")
        .rename("Pong", "Ping")
}

#[derive(Default, Debug)]
struct Seen(Vec<Now>);

impl Aggregate for Seen {
    const CATEGORY: &'static str = "seen";
    type Event = Now;

    fn apply(&mut self, event: &Now) {
        self.0.push(event.clone());
    }
}

async fn old(events: &[(&str, u32, serde_json::Value)]) -> Store {
    let store = Store::memory();
    let new = |(name, version, data): &(&str, u32, serde_json::Value)| {
        let event = NewEvent::json(EventType::new(*name).unwrap(), data.to_string());
        event.with_metadata(format!(r#"{{"$version":{version}}}"#))
    };
    let stream = StreamName::new("seen-1").unwrap();
    let append = Append::to(
        stream,
        ExpectedRevision::Any,
        events.iter().map(new).collect(),
    );
    store.event_store().append(append.unwrap()).await.unwrap();
    store
}

#[tokio::test]
async fn old_events_are_renamed_changed_split_and_dropped_while_places_stay() {
    let store = old(&[
        ("MoneyPaidIn", 1, json!({ "amount": 1 })),
        ("StatementPrinted", 1, json!({})),
        ("CustomerNamed", 1, json!({ "name": "Ada Lovelace" })),
        ("DepositMade", 2, json!({ "amount": 2, "currency": "USD" })),
        ("DepositMade", 3, json!({ "cents": 3, "currency": "GBP" })),
    ])
    .await;
    let loaded = store.repository::<Seen>().load("1").await.unwrap();
    let deposit = |cents, currency: &str| Now::DepositMade {
        cents,
        currency: currency.into(),
    };
    assert_eq!(
        loaded.state().0,
        [
            deposit(100, "EUR"),
            Now::OwnerNamed {
                first: "Ada".into()
            },
            Now::FamilyNamed {
                last: "Lovelace".into()
            },
            deposit(200, "USD"),
            deposit(3, "GBP"),
        ]
    );
    assert_eq!(
        (loaded.event_count(), loaded.revision()),
        (5, Some(Revision::new(4)))
    );

    let mut batches = store.event_store().read(Read::all());
    let batch = futures_util::StreamExt::next(&mut batches)
        .await
        .unwrap()
        .unwrap();
    let parts = Recorded::<Now>::of(&batch.events[2]).unwrap();
    let places: Vec<_> = parts.iter().map(|p| (p.revision.get(), p.part)).collect();
    assert_eq!(places, [(2, 0), (2, 1)]);
}

#[tokio::test]
async fn a_new_shape_is_stored_with_its_version_and_read_without_upcasts() {
    let store = Store::memory();
    let seen = store.repository::<Seen>();
    let event = Now::DepositMade {
        cents: 5,
        currency: "EUR".into(),
    };
    let decided = event.clone();
    seen.execute("1", move |_| Ok::<_, String>(decided.clone()))
        .await
        .unwrap();
    assert_eq!(seen.load("1").await.unwrap().state().0, [event]);
    let mut batches = store.event_store().read(Read::all());
    let batch = futures_util::StreamExt::next(&mut batches)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(batch.events[0].metadata, r#"{"$version":3}"#);
}

#[tokio::test]
async fn an_upcast_that_fails_panics_or_never_ends_is_an_error_that_names_the_event() {
    let cases = [
        ("CustomerNamed", json!({ "name": "Ada" }), "failed"),
        ("Panics", json!({}), "no such thing"),
        ("Ping", json!({}), "circle"),
        ("DepositMade", json!({}), "failed"),
    ];
    for (name, data, says) in cases {
        let error = old(&[(name, 1, data)])
            .await
            .repository::<Seen>()
            .load("1")
            .await
            .unwrap_err();
        let LoadError::Undecodable {
            event_type,
            version: 1,
            source,
            ..
        } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!(event_type.as_str(), name);
        let DecodeError::Upcast(upcast) = source.as_ref() else {
            panic!("{source:?}")
        };
        assert!(upcast.to_string().contains(says), "{upcast}");
    }
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(upcast = useless)]
enum Forgot {
    #[event("DepositMade")]
    DepositMade { cents: u64 },
}

fn useless() -> Upcasters {
    Upcasters::new().change("DepositMade", 1, |_| {})
}

#[tokio::test]
async fn an_upcast_of_what_the_program_writes_is_an_error_and_not_just_never_called() {
    let store = old(&[("DepositMade", 1, json!({ "cents": 1 }))]).await;
    let mut batches = store.event_store().read(Read::all());
    let batch = futures_util::StreamExt::next(&mut batches)
        .await
        .unwrap()
        .unwrap();
    let error = Recorded::<Forgot>::of(&batch.events[0]).unwrap_err();
    assert!(
        matches!(error, DecodeError::Upcast(UpcastError::Table { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("version = 2"), "{error}");
}

mod lock {
    use super::*;
    use leftfold::Shape;

    #[derive(Serialize, Deserialize, Shape)]
    pub(crate) struct Money {
        cents: i64,
        currency: String,
    }

    #[derive(Event, Serialize, Deserialize)]
    enum First {
        #[event("Paid")]
        Paid {
            #[serde(default)]
            money: Vec<Money>,
            note: std::num::NonZeroU8,
        },
    }

    #[derive(Event, Serialize, Deserialize)]
    enum Changed {
        #[event("Paid")]
        Paid {
            money: Vec<Money>,
            note: std::num::NonZeroU8,
        },
    }

    #[derive(Event, Serialize, Deserialize)]
    #[event(upcast = history)]
    enum Raised {
        #[event("Paid", version = 2)]
        Paid { money: Vec<Money> },
    }

    fn history() -> Upcasters {
        Upcasters::new().change("Paid", 1, |_| {})
    }

    fn outcome(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
        match std::panic::catch_unwind(check) {
            Ok(()) => String::new(),
            Err(payload) => payload.downcast_ref::<String>().unwrap().clone(),
        }
    }

    #[test]
    fn a_stored_shape_that_changes_without_a_new_version_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.lock");
        let lock = || EventsLock::at(&path);
        let missing = outcome(|| lock().with::<First>().check());
        assert!(missing.contains("LEFTFOLD_EVENTS_LOCK=update"), "{missing}");
        let shape = First::shape(0);
        assert_eq!(
            shape,
            "serde(default) money:[Money{cents:i64,currency:String}],note:std::num::NonZeroU8"
        );
        std::fs::write(&path, format!("Paid\t1\t{shape}\n")).unwrap();
        assert_eq!(outcome(|| lock().with::<First>().check()), "");
        let changed = outcome(|| lock().with::<Changed>().check());
        assert!(
            changed.contains("version = 2") && changed.contains("was:"),
            "{changed}"
        );
        let gone = outcome(|| lock().with::<Now>().check());
        assert!(gone.contains("neither a variant nor an upcast"), "{gone}");
        let new = outcome(|| lock().with::<Raised>().check());
        assert!(new.contains("Paid 2"), "{new}");
    }
}

/// Bytes, which formats other than JSON have a type for.
#[derive(Debug, PartialEq, Clone)]
struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

/// Readings as an older program wrote them, in one format.
macro_rules! older_readings {
    ($name:ident, $format:literal) => {
        #[derive(Event, Serialize, Deserialize, Debug)]
        #[event(format = $format)]
        enum $name {
            #[event("ReadingsTaken")]
            ReadingsTaken {
                by_day: BTreeMap<u32, Option<i64>>,
                by_side: BTreeMap<bool, f64>,
                raw: Raw,
            },
        }

        impl $name {
            fn event() -> NewEvent {
                let event = Self::ReadingsTaken {
                    by_day: BTreeMap::from([(7, Some(-1)), (12, None)]),
                    by_side: BTreeMap::from([(true, 0.5)]),
                    raw: Raw(vec![0, 255]),
                };
                let encoded = event.encode().unwrap();
                let event_type = EventType::new("ReadingsTaken").unwrap();
                let event = NewEvent::new(event_type, encoded.content_type, encoded.data);
                event.with_metadata(r#"{"$version":1}"#)
            }
        }
    };
}
older_readings!(OlderJson, "json");
older_readings!(OlderMessagePack, "messagepack");
older_readings!(OlderCbor, "cbor");

#[derive(Event, Serialize, Deserialize, Debug, PartialEq, Clone)]
#[event(upcast = with_unit)]
enum Reading {
    #[event("ReadingsTaken", version = 2)]
    ReadingsTaken {
        by_day: BTreeMap<u32, Option<i64>>,
        by_side: BTreeMap<String, f64>,
        raw: Raw,
        unit: String,
    },
}

fn with_unit() -> Upcasters {
    Upcasters::new().change("ReadingsTaken", 1, |data| data["unit"] = "mm".into())
}

#[tokio::test]
async fn maps_with_any_keys_and_byte_strings_are_upcast_as_json_whatever_they_were_stored_as() {
    let store = Store::memory();
    let events = vec![
        OlderJson::event(),
        OlderMessagePack::event(),
        OlderCbor::event(),
    ];
    let stream = StreamName::new("readings-1").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, events).unwrap();
    store.event_store().append(append).await.unwrap();
    let mut batches = store.event_store().read(Read::all());
    let batch = futures_util::StreamExt::next(&mut batches).await;
    let expected = Reading::ReadingsTaken {
        by_day: BTreeMap::from([(7, Some(-1)), (12, None)]),
        by_side: BTreeMap::from([("true".to_owned(), 0.5)]),
        raw: Raw(vec![0, 255]),
        unit: "mm".into(),
    };
    for stored in &batch.unwrap().unwrap().events {
        let read = Recorded::<Reading>::of(stored).unwrap();
        assert_eq!(read[0].event, expected, "{:?}", stored.content_type);
    }
}

/// A measurement as an older program wrote it.
#[derive(Event, Serialize, Deserialize, Debug)]
#[event(format = "cbor")]
enum OlderMeasurement {
    #[event("Measured")]
    Measured { value: Option<f64> },
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(upcast = measured_in_metres)]
enum Measurement {
    #[event("Measured", version = 2)]
    Measured { value: Option<f64>, unit: String },
}

fn measured_in_metres() -> Upcasters {
    Upcasters::new().change("Measured", 1, |data| data["unit"] = "m".into())
}

#[tokio::test]
async fn a_number_that_json_does_not_have_is_an_error_of_an_upcast_and_not_another_value() {
    let store = Store::memory();
    let older = [f64::NAN, f64::INFINITY, 0.5].map(|value| {
        let event = OlderMeasurement::Measured { value: Some(value) };
        let encoded = event.encode().unwrap();
        let event_type = EventType::new("Measured").unwrap();
        NewEvent::new(event_type, encoded.content_type, encoded.data)
    });
    let stream = StreamName::new("readings-1").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, older.to_vec()).unwrap();
    store.event_store().append(append).await.unwrap();
    let mut batches = store.event_store().read(Read::all());
    let batch = futures_util::StreamExt::next(&mut batches).await;
    let events = batch.unwrap().unwrap().events;
    for stored in &events[..2] {
        let refused = Recorded::<Measurement>::of(stored).unwrap_err();
        let reasons = format!("{refused:?}");
        assert!(reasons.contains("JSON, which has no number"), "{reasons}");
    }
    let read = Recorded::<Measurement>::of(&events[2]).unwrap();
    let expected = Measurement::Measured {
        value: Some(0.5),
        unit: "m".into(),
    };
    assert_eq!(read[0].event, expected);
}
