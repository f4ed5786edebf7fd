//! Events to data and back.

use std::collections::BTreeMap;

use leftfold::{
    Data, DecodeError, Event, Recorded, Store, UnknownEvent,
    model::{
        Append, ContentType, EventType, ExpectedRevision, NewEvent, Read, RecordedEvent, StreamName,
    },
};
use serde::{Deserialize, Serialize};

/// Each kind of variant, in one format.
macro_rules! every_kind {
    ($name:ident, $format:literal) => {
        #[derive(Event, Serialize, Deserialize, Debug, PartialEq, Clone)]
        #[event(format = $format)]
        enum $name {
            #[event("unit")]
            Unit,
            #[event("newtype")]
            Newtype(String),
            #[event("tuple")]
            Tuple(u8, Option<bool>),
            #[event("fields")]
            Fields {
                #[serde(rename = "first-name")]
                first_name: String,
                #[serde(default, skip_serializing_if = "Option::is_none")]
                age: Option<u32>,
                more: BTreeMap<String, Vec<f64>>,
            },
            #[event("quoted \" \\ name")]
            #[serde(rename = "odd \" \\ tag: {}")]
            Odd { n: i64 },
        }

        impl $name {
            fn all() -> Vec<Self> {
                let more = BTreeMap::from([("a:\"}".to_owned(), vec![0.1, 1e300])]);
                vec![
                    Self::Unit,
                    Self::Newtype("\"}{".into()),
                    Self::Tuple(7, None),
                    Self::Fields {
                        first_name: "Ada".into(),
                        age: None,
                        more,
                    },
                    Self::Odd { n: i64::MIN },
                ]
            }
        }
    };
}
every_kind!(InJson, "json");
every_kind!(InMessagePack, "messagepack");
every_kind!(InCbor, "cbor");

fn comes_back<E: Event + PartialEq + std::fmt::Debug>(events: Vec<E>, content_type: ContentType) {
    for (kind, event) in events.into_iter().enumerate() {
        let encoded = event.encode().unwrap();
        assert_eq!(encoded.content_type, content_type);
        let back = E::decode(kind, Data::Stored(content_type, &encoded.data)).unwrap();
        assert_eq!(back, event);
        let mut longer = encoded.data.clone();
        longer.push(b'1');
        assert!(
            E::decode(kind, Data::Stored(content_type, &longer)).is_err(),
            "{event:?} with more behind it"
        );
        if let Some((_, shorter)) = encoded.data.split_last() {
            assert!(
                E::decode(kind, Data::Stored(content_type, shorter)).is_err(),
                "{event:?} cut short"
            );
        }
    }
}

#[test]
fn every_kind_of_variant_comes_back_as_it_went_in_in_every_format() {
    comes_back(InJson::all(), ContentType::Json);
    comes_back(InMessagePack::all(), ContentType::MessagePack);
    comes_back(InCbor::all(), ContentType::Cbor);
}

#[test]
fn json_data_is_the_fields_and_nothing_else() {
    let data = [
        "{}",
        r#""\"}{""#,
        "[7,null]",
        r#"{"first-name":"Ada","more":{"a:\"}":[0.1,1e+300]}}"#,
        r#"{"n":-9223372036854775808}"#,
    ];
    for (event, expected) in InJson::all().iter().zip(data) {
        let encoded = event.encode().unwrap();
        assert_eq!(String::from_utf8_lossy(&encoded.data), expected);
    }
}

#[test]
fn an_enum_reads_every_format_whatever_it_writes() {
    let event = InCbor::all().remove(3);
    let encoded = event.encode().unwrap();
    let read = InJson::decode(3, Data::Stored(encoded.content_type, &encoded.data)).unwrap();
    assert_eq!(read, InJson::all().remove(3));
}

#[test]
fn data_that_does_not_fit_is_an_error() {
    for (kind, data) in [(3, "{}"), (2, "[7]"), (1, "1"), (0, "{} {}"), (0, "{")] {
        let stored = Data::Stored(ContentType::Json, data.as_bytes());
        let error = InJson::decode(kind, stored).unwrap_err();
        assert!(
            matches!(error, DecodeError::Data(_)),
            "{kind} {data}: {error}"
        );
    }
    let binary = InJson::decode(0, Data::Stored(ContentType::Binary, b"{}")).unwrap_err();
    assert!(
        binary.to_string().contains("application/octet-stream"),
        "{binary}"
    );
}

#[derive(Event, Serialize, Deserialize, Debug)]
enum Tagged {
    #[event("a")]
    A {
        #[tag("owner")]
        owner: String,
        #[tag("guest")]
        guest: Option<u32>,
        #[tag("room")]
        rooms: Vec<u8>,
    },
    #[event("b")]
    B(#[tag("owner")] String, u8),
}

#[test]
fn fields_give_tags_for_each_value_they_hold() {
    let tags = |event: Tagged| -> Vec<String> {
        let tags = event.tags().unwrap();
        tags.iter().map(ToString::to_string).collect()
    };
    let some = Tagged::A {
        owner: "ann".into(),
        guest: Some(7),
        rooms: vec![1, 2],
    };
    assert_eq!(tags(some), ["owner:ann", "guest:7", "room:1", "room:2"]);
    let none = Tagged::A {
        owner: "ann".into(),
        guest: None,
        rooms: Vec::new(),
    };
    assert_eq!(tags(none), ["owner:ann"]);
    assert_eq!(tags(Tagged::B("bob".into(), 1)), ["owner:bob"]);
    let long = Tagged::B("x".repeat(300), 1).tags().unwrap_err();
    assert!(long.to_string().contains("TAG_BYTES_MAX"), "{long}");
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(unknown = "skip")]
enum Skips {
    #[event("known")]
    Known,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum Keeps {
    #[event("known")]
    Known,
    #[event(other)]
    Other(UnknownEvent),
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum Refuses {
    #[event("known")]
    Known,
}

async fn stored(event: NewEvent) -> RecordedEvent {
    let store = Store::memory();
    let stream = StreamName::new("s").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
    store.event_store().append(append).await.unwrap();
    let mut batches = store.event_store().read(Read::all());
    let batch = futures_util::StreamExt::next(&mut batches).await.unwrap();
    batch.unwrap().events.remove(0)
}

#[tokio::test]
async fn unknown_types_are_met_as_the_enum_chose() {
    let data = br#"{"n":1}"#.as_slice();
    let unknown = stored(NewEvent::json(EventType::new("unknown").unwrap(), data)).await;
    assert_eq!(Recorded::<Skips>::of(&unknown).unwrap(), []);
    let kept = Recorded::<Keeps>::of(&unknown).unwrap().remove(0).event;
    let Keeps::Other(raw) = &kept else {
        panic!("{kept:?}")
    };
    assert_eq!(
        (raw.event_type.as_str(), raw.data.as_slice()),
        ("unknown", data)
    );
    assert_eq!(
        kept.encode().unwrap().data,
        data,
        "and can be stored again as it was"
    );
    assert_eq!((kept.event_type(), kept.version()), ("unknown", 1));
    let refused = Recorded::<Refuses>::of(&unknown).unwrap_err();
    assert_eq!(refused.to_string(), r#"type is not one of ["known"]"#);
}

#[tokio::test]
async fn an_unknown_version_is_an_error_whatever_the_enum_chose() {
    let newer =
        NewEvent::json(EventType::new("known").unwrap(), "{}").with_metadata(r#"{"$version":2}"#);
    let newer = stored(newer).await;
    for error in [
        Recorded::<Skips>::of(&newer).unwrap_err(),
        Recorded::<Keeps>::of(&newer).unwrap_err(),
        Recorded::<Refuses>::of(&newer).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "version is 2; known are [1]");
    }
    let odd = NewEvent::json(EventType::new("known").unwrap(), "{}")
        .with_metadata(r#"{"$version":"two"}"#);
    let error = Recorded::<Skips>::of(&stored(odd).await).unwrap_err();
    assert!(error.to_string().contains("\"two\""), "{error}");
}
