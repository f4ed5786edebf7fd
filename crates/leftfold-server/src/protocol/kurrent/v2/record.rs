//! Decoding records: events with properties and a schema.
//!
//! **Owns:** how properties and schema become metadata and tags. **Does not know:** where a record goes.
//! **Invariants:** the properties and schema of a record are stored in its metadata, where the first protocol returns them.

use std::collections::HashMap;

use leftfold_model::{ContentType, EventId, EventType, NewEvent, StreamName, Tag, limits};
use leftfold_proto::{
    kurrentdb::protocol::v2::streams::{AppendRecord, SchemaFormat},
    prost_types::{self, value::Kind},
};
use serde_json::{Map, Number, Value};
use tonic::Status;

use super::status;
use crate::protocol::client_id;

/// The property whose texts become tags.
const TAGS: &str = "$tags";
/// Maximum bytes of tags in one text: as many as an event may have, each with the longest escape for each byte.
const TAGS_BYTES_MAX: usize = limits::TAGS_PER_EVENT_MAX * (6 * limits::TAG_BYTES_MAX + 3) + 2;
const SCHEMA_FORMAT: &str = "$schema.format";
const SCHEMA_NAME: &str = "$schema.name";
const SCHEMA_ID: &str = "$schema.id";
/// Maximum bytes of a record: data and properties.
const RECORD_BYTES_MAX: usize = limits::DATA_BYTES_MAX;

/// Decodes a stream's name.
pub(super) fn stream(name: String) -> Result<StreamName, Status> {
    if name == "$$" {
        return Err(Status::invalid_argument(
            "stream name \"$$\" is that of no stream's metadata",
        ));
    }
    StreamName::new(name).map_err(|error| status::of_model(&error))
}

/// Decodes a record as an event for `stream`.
pub(super) fn event(record: AppendRecord, stream: &StreamName) -> Result<NewEvent, Status> {
    let refused = |error| status::of_model(&error);
    let id: Option<EventId> = match record.record_id.as_deref() {
        None | Some("") => None,
        Some(id) => Some(id.parse().map_err(refused)?),
    };
    let id = id.filter(|id| !id.is_nil()).unwrap_or_else(EventId::fresh);
    let missing =
        |what| Status::invalid_argument(format!("record {id} for stream {stream} names no {what}"));
    let schema = record.schema.ok_or_else(|| missing("schema"))?;
    let (format, content_type) =
        format(schema.format).ok_or_else(|| missing("schema format that is known"))?;
    let event_type = EventType::new(schema.name.clone()).map_err(refused)?;

    let mut properties = properties(record.properties)
        .map_err(|what| Status::invalid_argument(format!("record {id}: {what}")))?;
    let tags = tags(properties.get(TAGS))
        .map_err(|what| Status::invalid_argument(format!("record {id}: {what}")))?;
    properties.insert(SCHEMA_FORMAT.to_owned(), format.into());
    properties.insert(SCHEMA_NAME.to_owned(), schema.name.into());
    if let Some(schema_id) = schema.id {
        properties.insert(SCHEMA_ID.to_owned(), schema_id.into());
    }
    let metadata = Value::Object(properties).to_string();

    let size = record.data.len() + metadata.len();
    if size > RECORD_BYTES_MAX {
        let id = id.to_string();
        return Err(status::record_too_large(stream, id, size, RECORD_BYTES_MAX));
    }
    NewEvent::new_with_id(id, event_type, content_type, record.data)
        .with_metadata(client_id::protect(metadata.into(), id))
        .with_tags(tags)
        .map_err(refused)
}

fn format(number: i32) -> Option<(&'static str, ContentType)> {
    match SchemaFormat::try_from(number).ok()? {
        SchemaFormat::Unspecified => None,
        SchemaFormat::Json => Some(("Json", ContentType::Json)),
        SchemaFormat::Protobuf => Some(("Protobuf", ContentType::Binary)),
        SchemaFormat::Avro => Some(("Avro", ContentType::Binary)),
        SchemaFormat::Bytes => Some(("Bytes", ContentType::Binary)),
    }
}

fn properties(given: HashMap<String, prost_types::Value>) -> Result<Map<String, Value>, String> {
    let property = |(key, value): (String, prost_types::Value)| match json(value) {
        Some(value) => Ok((key, value)),
        None => Err(format!("property {key:?} holds a number that JSON cannot")),
    };
    given.into_iter().map(property).collect()
}

/// Converts a value of Protocol Buffers to JSON; `None` for numbers that JSON does not have.
fn json(value: prost_types::Value) -> Option<Value> {
    Some(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::NumberValue(number)) => Value::Number(self::number(number)?),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(json).collect::<Option<_>>()?)
        }
        Some(Kind::StructValue(members)) => {
            let member = |(key, value)| Some((key, json(value)?));
            Value::Object(
                members
                    .fields
                    .into_iter()
                    .map(member)
                    .collect::<Option<_>>()?,
            )
        }
    })
}

/// Encodes whole numbers without a fraction.
fn number(number: f64) -> Option<Number> {
    const EXACT_TO: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_TO {
        // Up to there every whole number has digits of its own.
        return format!("{number:.0}").parse::<i64>().ok().map(Number::from);
    }
    Number::from_f64(number)
}

/// Decodes the tags of a property: a list of texts; or a text that is a JSON list of texts, or one tag, for clients whose
/// properties are texts.
fn tags(property: Option<&Value>) -> Result<Vec<Tag>, String> {
    let texts_of = |list: &[Value]| {
        let texts: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
        texts.map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let texts = match property {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => texts_of(list),
        Some(Value::String(text)) if text.len() > TAGS_BYTES_MAX => {
            return Err(format!(
                "property {TAGS} has {} bytes; expected at most {TAGS_BYTES_MAX}",
                text.len()
            ));
        }
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Array(list)) => texts_of(&list),
            _ => Some(vec![text.clone()]),
        },
        Some(_) => None,
    };
    let texts = texts.ok_or_else(|| format!("property {TAGS} is not a list of texts"))?;
    let tag = |text: String| Tag::new(text).map_err(|error| error.to_string());
    texts.into_iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: Kind) -> prost_types::Value {
        prost_types::Value { kind: Some(kind) }
    }

    #[test]
    fn numbers_are_written_as_people_write_them() {
        let texts_of = |number| self::number(number).map(|number| number.to_string());
        assert_eq!(texts_of(5.0).as_deref(), Some("5"));
        assert_eq!(texts_of(-0.0).as_deref(), Some("0"));
        assert_eq!(texts_of(-7.25).as_deref(), Some("-7.25"));
        assert_eq!(texts_of(1e300).as_deref(), Some("1e+300"));
        assert_eq!(texts_of(f64::NAN), None);
        assert_eq!(texts_of(f64::INFINITY), None);
    }

    #[test]
    fn a_number_that_json_does_not_have_is_refused_by_the_name_of_its_property() {
        let nan = HashMap::from([("x".to_owned(), value(Kind::NumberValue(f64::NAN)))]);
        assert!(properties(nan).unwrap_err().contains("\"x\""));
    }

    #[test]
    fn tags_come_as_a_list_as_json_or_alone() {
        let texts = |property: Value| {
            let tags = tags(Some(&property)).unwrap();
            tags.iter().map(Tag::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(serde_json::json!(["a", "b"])), ["a", "b"]);
        assert_eq!(texts("[\"a\",\"b\"]".into()), ["a", "b"]);
        assert_eq!(texts("course:c1".into()), ["course:c1"]);
        for wrong in [serde_json::json!([1]), 1.into(), serde_json::json!([""])] {
            assert!(tags(Some(&wrong)).is_err(), "{wrong}");
        }
    }
}
