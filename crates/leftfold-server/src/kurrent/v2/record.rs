//! Records between the second protocol and the model.
//!
//! **Owns:** what properties and schemas look like in an event's metadata. **Does not know:** requests.
//! **Invariants:** what was a property is a key of the metadata, so that the first protocol shows it too.

use leftfold_model::{ContentType, EventId, EventType, NewEvent, StreamName, limits};
use leftfold_proto::{
    kurrentdb::protocol::v2::streams::{AppendRecord, SchemaFormat, SchemaInfo},
    prost_types::{Value, value::Kind},
};
use serde_json::{Map, Number, Value as Json};
use tonic::Status;

use super::{super::tags, errors};

/// The event of a record.
pub(super) fn event(record: AppendRecord, stream: &StreamName) -> Result<NewEvent, Status> {
    let schema = record.schema.ok_or_else(|| {
        Status::invalid_argument("a record needs a schema, for its name and format")
    })?;
    let id = match record.record_id.as_deref() {
        None | Some("") => EventId::fresh(),
        Some(text) => text.parse().map_err(|error| errors::invalid(&error))?,
    };
    let size = record.data.len();
    if size > limits::DATA_BYTES_MAX {
        return Err(errors::record_too_large(stream, id, size));
    }
    let event_type =
        EventType::new(schema.name.as_str()).map_err(|error| errors::invalid(&error))?;
    let format = schema.format();
    let content_type = match format {
        SchemaFormat::Json => ContentType::Json,
        SchemaFormat::Protobuf | SchemaFormat::Avro | SchemaFormat::Bytes => ContentType::Binary,
        SchemaFormat::Unspecified => {
            return Err(Status::invalid_argument(
                "the schema of a record needs a format",
            ));
        }
    };
    let properties = record.properties.into_iter();
    let mut metadata: Map<String, Json> =
        properties.map(|(key, value)| (key, json(value))).collect();
    note(&mut metadata, &schema, format);
    let metadata = Json::Object(metadata).to_string();
    let tags = tags::named_in(metadata.as_bytes()).map_err(|error| errors::invalid(&error))?;
    NewEvent::new(event_type, content_type, record.data)
        .with_id(id)
        .with_metadata(metadata)
        .with_tags(tags)
        .map_err(|error| errors::invalid(&error))
}

fn note(metadata: &mut Map<String, Json>, schema: &SchemaInfo, format: SchemaFormat) {
    let format = match format {
        SchemaFormat::Json => "Json",
        SchemaFormat::Protobuf => "Protobuf",
        SchemaFormat::Avro => "Avro",
        SchemaFormat::Bytes | SchemaFormat::Unspecified => "Bytes",
    };
    metadata.insert("$schema.format".into(), format.into());
    metadata.insert("$schema.name".into(), schema.name.as_str().into());
    if let Some(id) = &schema.id {
        metadata.insert("$schema.id".into(), id.as_str().into());
    }
}

/// A property as JSON. What JSON has no number for is null.
fn json(value: Value) -> Json {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(truth)) => truth.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::NumberValue(number)) => whole(number).map_or_else(
            || Number::from_f64(number).map_or(Json::Null, Json::Number),
            Json::from,
        ),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
        Some(Kind::StructValue(fields)) => {
            let fields = fields.fields.into_iter();
            Json::Object(fields.map(|(key, value)| (key, json(value))).collect())
        }
    }
}

/// A number without a fraction, which this wire has no form of its own for, as one.
fn whole(number: f64) -> Option<i64> {
    /// Beyond these, not every whole number has a form with a fraction.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded, and without a fraction"
    )]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_fraction_stay_whole() {
        let number = |number| {
            json(Value {
                kind: Some(Kind::NumberValue(number)),
            })
        };
        assert_eq!(number(3.0).to_string(), "3");
        assert_eq!(number(-3.5).to_string(), "-3.5");
        assert_eq!(number(f64::NAN), Json::Null);
        assert_eq!(number(1e300).as_f64(), Some(1e300));
    }
}
