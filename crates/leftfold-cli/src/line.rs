//! One event as one line of JSON: the format of import, export and `--json`.
//!
//! **Owns:** the format (docs/jsonl.md). **Does not know:** files and stores.
//! **Invariants:** a line written from an event and read again gives the same event, byte for byte of data and metadata;
//! JSON is kept as it was written, other bytes are base64.

use base64::{Engine, prelude::BASE64_STANDARD};
use leftfold_model::{
    ContentType, EventId, EventType, ModelError, NewEvent, RecordedEvent, StreamName, Tag,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The namespace of ids that are derived from a line.
const LINE_NAMESPACE: EventId = EventId::from_bytes(*b"leftfold-line-id");

/// Why a line is not an event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("not an event in JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{field} is not base64")]
    Base64 {
        field: &'static str,
        #[source]
        source: base64::DecodeError,
    },
    #[error("both {0} and {0}_base64 are given")]
    Twice(&'static str),
    #[error("content_type {0:?} is unknown; see docs/jsonl.md for those that are known")]
    ContentType(String),
    #[error("time {given:?} is not a time like 2026-01-31T12:00:00.5Z after 1970")]
    Time { given: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input<'a> {
    stream: String,
    #[serde(rename = "type")]
    event_type: String,
    id: Option<String>,
    time: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    content_type: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    metadata_base64: Option<String>,
    // What a read prints and an import gives anew.
    #[serde(rename = "position")]
    _position: Option<u64>,
    #[serde(rename = "revision")]
    _revision: Option<u64>,
}

/// Reads a line. An event without an id gets one that follows from the line and its number.
pub(crate) fn parse(line: &str, number: u64) -> Result<(StreamName, NewEvent), LineError> {
    let input: Input<'_> = serde_json::from_str(line)?;
    let data = bytes("data", input.data, input.data_base64)?;
    let metadata = bytes("metadata", input.metadata, input.metadata_base64)?.unwrap_or_default();
    let content_type = match input.content_type {
        None => ContentType::Json,
        Some(text) => content_type(&text).ok_or(LineError::ContentType(text))?,
    };
    let data = data.unwrap_or_else(|| {
        if content_type == ContentType::Json {
            b"{}".to_vec()
        } else {
            Vec::new()
        }
    });
    let id = match input.id {
        Some(id) => id.parse()?,
        None => EventId::derived(LINE_NAMESPACE, format!("{number}:{line}").as_bytes()),
    };
    let tags = input
        .tags
        .into_iter()
        .map(Tag::new)
        .collect::<Result<Vec<_>, _>>()?;
    let mut event = NewEvent::new(EventType::new(input.event_type)?, content_type, data)
        .with_id(id)
        .with_metadata(metadata)
        .with_tags(tags)?;
    if let Some(given) = input.time {
        event = event.with_time(time(&given).ok_or(LineError::Time { given })?);
    }
    Ok((StreamName::new(input.stream)?, event))
}

fn bytes(
    field: &'static str,
    json: Option<&RawValue>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, LineError> {
    match (json, base64) {
        (Some(_), Some(_)) => Err(LineError::Twice(field)),
        (Some(json), None) => Ok(Some(json.get().as_bytes().to_vec())),
        (None, Some(text)) => BASE64_STANDARD
            .decode(text)
            .map(Some)
            .map_err(|source| LineError::Base64 { field, source }),
        (None, None) => Ok(None),
    }
}

fn content_type(text: &str) -> Option<ContentType> {
    (1..=u8::MAX)
        .map_while(ContentType::from_code)
        .find(|known| known.media_type() == text)
}

fn time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_microsecond())
        .ok()
        .map(Timestamp::from_micros)
}

/// A time as text.
pub(crate) fn time_text(time: Timestamp) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| time.as_micros().to_string(), |time| time.to_string())
}

#[derive(Serialize)]
struct Output<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(rename = "type")]
    event_type: &'a str,
    id: String,
    time: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Writes an event as a line, without the line break. `places`: with position and revision.
pub(crate) fn format(event: &RecordedEvent, places: bool) -> Result<String, serde_json::Error> {
    let is_json = event.content_type == ContentType::Json;
    let data = if is_json { raw(&event.data) } else { None };
    let metadata = raw(&event.metadata);
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    serde_json::to_string(&Output {
        position: places.then(|| event.position.get()),
        stream: event.stream.as_str(),
        revision: places.then(|| event.revision.get()),
        event_type: event.event_type.as_str(),
        id: event.id.to_string(),
        time: time_text(event.time),
        tags: event.tags.iter().map(Tag::as_str).collect(),
        metadata_base64: (metadata.is_none() && !event.metadata.is_empty())
            .then(|| base64(&event.metadata)),
        metadata,
        content_type: (!is_json).then(|| event.content_type.media_type()),
        data_base64: data.is_none().then(|| base64(&event.data)),
        data,
    })
}

/// Bytes as they are, if they are JSON that fits on a line and begins and ends with itself.
fn raw(bytes: &[u8]) -> Option<&RawValue> {
    let text = std::str::from_utf8(bytes).ok()?;
    let fits = !text.contains(['\n', '\r']) && text.trim().len() == text.len();
    // A bare null would read as "not given".
    let value = serde_json::from_str::<&RawValue>(text).ok()?;
    (fits && text != "null").then_some(value)
}

#[cfg(test)]
mod tests {
    use leftfold_model::{Position, Revision};

    use super::*;

    fn recorded(event: &NewEvent, stream: StreamName) -> RecordedEvent {
        RecordedEvent {
            position: Position::FIRST,
            stream,
            revision: Revision::FIRST,
            id: event.id(),
            event_type: event.event_type().clone(),
            content_type: event.content_type(),
            data: event.data().clone(),
            metadata: event.metadata().clone(),
            tags: event.tags().to_vec(),
            time: event.time().unwrap_or_default(),
        }
    }

    #[test]
    fn a_line_read_and_written_again_is_the_same_line() {
        let datas: [&[u8]; 7] = [
            b"{}",
            br#"{ "a" : 1.00 }"#,
            b"null",
            b"\xff\x00",
            b"{\n}",
            b"",
            br#""text""#,
        ];
        for data in datas {
            for content_type in [ContentType::Json, ContentType::Binary] {
                let event =
                    NewEvent::new(EventType::new("T").unwrap(), content_type, data.to_vec())
                        .with_metadata(data.to_vec())
                        .with_time(Timestamp::from_micros(1_700_000_000_123_456));
                let stream = StreamName::new("s \"1\"").unwrap();
                let line = format(&recorded(&event, stream.clone()), false).unwrap();
                let (read_stream, read) = parse(&line, 1).unwrap();
                assert_eq!((&read_stream, &read), (&stream, &event), "{line}");
                assert_eq!(format(&recorded(&read, read_stream), false).unwrap(), line);
            }
        }
    }

    #[test]
    fn a_line_without_an_id_gets_the_same_one_each_time() {
        let line = r#"{"stream":"s","type":"T","data":{}}"#;
        let id = |number| parse(line, number).unwrap().1.id();
        assert_eq!(id(1), id(1));
        assert_ne!(id(1), id(2));
    }

    #[test]
    fn a_bad_line_is_refused_in_words() {
        for (line, reason) in [
            ("{", "not an event"),
            (r#"{"type":"T"}"#, "not an event"),
            (r#"{"stream":"","type":"T"}"#, "STREAM_NAME_BYTES_MAX"),
            (r#"{"stream":"s","type":"T","id":"7"}"#, "not a UUID"),
            (
                r#"{"stream":"s","type":"T","time":"yesterday"}"#,
                "yesterday",
            ),
            (r#"{"stream":"s","type":"T","data_base64":"!"}"#, "base64"),
            (
                r#"{"stream":"s","type":"T","content_type":"text/html"}"#,
                "text/html",
            ),
            (r#"{"stream":"s","type":"T","daat":1}"#, "not an event"),
        ] {
            let error = parse(line, 1).unwrap_err().to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
