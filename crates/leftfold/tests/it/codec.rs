//! Events to data and back.

use std::collections::BTreeMap;

use leftfold::{DecodeError, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum Every {
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
    Odd { n: i128 },
}

#[test]
fn every_kind_of_variant_comes_back_as_it_went_in() {
    let more = BTreeMap::from([("a:\"}".to_owned(), vec![0.1, 1e300])]);
    let events = [
        (Every::Unit, "{}"),
        (Every::Newtype("\"}{".into()), r#""\"}{""#),
        (Every::Tuple(7, None), "[7,null]"),
        (
            Every::Fields {
                first_name: "Ada".into(),
                age: None,
                more,
            },
            r#"{"first-name":"Ada","more":{"a:\"}":[0.1,1e+300]}}"#,
        ),
        (
            Every::Odd { n: i128::MIN },
            r#"{"n":-170141183460469231731687303715884105728}"#,
        ),
    ];
    for (event, data) in events {
        let encoded = event.encode().unwrap();
        assert_eq!(String::from_utf8_lossy(&encoded), data);
        assert_eq!(Every::decode(event.event_type(), &encoded).unwrap(), event);
    }
}

#[test]
fn an_unknown_type_is_an_error_that_lists_the_known_ones() {
    let error = Every::decode("other", b"{}").unwrap_err();
    let DecodeError::UnknownType { known } = error else {
        panic!("{error}")
    };
    assert_eq!(known, Every::TYPES);
}

#[test]
fn data_that_does_not_fit_or_goes_on_is_an_error() {
    for (event_type, data) in [
        ("fields", "{}"),
        ("tuple", "[7]"),
        ("newtype", "1"),
        ("unit", "{} {}"),
        ("unit", "{"),
    ] {
        assert!(
            matches!(
                Every::decode(event_type, data.as_bytes()),
                Err(DecodeError::Data(_))
            ),
            "{event_type} {data}"
        );
    }
}

#[derive(Event, Serialize, Deserialize, Debug)]
#[serde(untagged)]
enum Untagged {
    #[event("a")]
    A { n: u8 },
}

#[test]
fn an_enum_that_serde_does_not_tag_is_refused_in_words() {
    let error = Untagged::decode("a", br#"{"n":1}"#).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("untagged"), "{source}");
    let _ = Untagged::A { n: 1 };
}
