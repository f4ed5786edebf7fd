//! Events as JSON: a line each for import, export and the command line, an object each over HTTP.
//!
//! **Owns:** the format (docs/jsonl.md). **Does not know:** files, stores, HTTP.
//! **Invariants:** an event written as a line and read again is equal, byte for byte of data and metadata; JSON is written
//! unchanged, other bytes as base64.

mod bounded;
mod export;
mod member;

pub(crate) use bounded::Bounded;
pub use export::{ExportError, ExportReader, ExportWriter};
pub(crate) use member::{member, text_member};

use base64::{Engine, prelude::BASE64_STANDARD};
use leftfold_model::{
    ContentType, EventId, EventType, ModelError, NewEvent, RecordedEvent, StreamName, Tag,
    Timestamp, limits::TAGS_PER_EVENT_MAX,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The namespace of ids that are derived from a line.
const LINE_NAMESPACE: EventId = EventId::from_bytes(*b"leftfold-line-id");

/// Why something is not an event in JSON.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventJsonError {
    /// It is not JSON, or a field is missing, of another type, or not known.
    #[error("not an event in JSON")]
    Json(#[from] serde_json::Error),
    /// A value breaks a limit.
    #[error("{error}")]
    Model {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        error: ModelError,
    },
    /// Bytes are not given in base64.
    #[error("{field}_base64 is not base64")]
    Base64 {
        /// What is given in this way: `data` or `metadata`.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: base64::DecodeError,
    },
    /// A value is given twice: as itself and in base64.
    #[error("both {0} and {0}_base64 are given")]
    Twice(&'static str),
    /// Neither the event nor its context names a stream.
    #[error("stream is missing")]
    NoStream,
    /// The media type of the data is unknown.
    #[error(
        "content_type {0:?} is unknown; known are application/json, application/octet-stream, \
         application/vnd.msgpack and application/cbor"
    )]
    ContentType(String),
    /// The time cannot be read.
    #[error("time {given:?} is not a time like 2026-01-31T12:00:00.5Z after 1970")]
    Time {
        /// The text.
        given: String,
    },
}

/// An event to append.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEvent)]
pub(crate) struct EventInput<'a> {
    /// The stream, if nothing else names it.
    pub(crate) stream: Option<String>,
    /// The type, at most 255 bytes.
    #[serde(rename = "type")]
    event_type: String,
    /// A UUID; without it the server creates one. Repeating an append with equal ids appends nothing.
    id: Option<String>,
    /// RFC 3339; without it the time of the append.
    time: Option<String>,
    /// Tags by which queries find the event, at most 64.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 64)]
    tags: Bounded<String, TAGS_PER_EVENT_MAX>,
    /// The media type of the data, if it is not JSON.
    content_type: Option<String>,
    /// The data, any JSON, stored byte for byte; without it `{}`.
    #[serde(borrow, default, deserialize_with = "given")]
    #[schema(value_type = serde_json::Value, required = false)]
    data: Option<&'a RawValue>,
    /// The data, if it is not JSON.
    data_base64: Option<String>,
    /// Metadata of the event, any JSON.
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value, required = false)]
    metadata: Option<&'a RawValue>,
    /// The metadata, if it is not JSON.
    metadata_base64: Option<String>,
    /// Ignored: events from a read carry a position, and an append assigns another.
    position: Option<u64>,
    /// Ignored as well.
    revision: Option<u64>,
}

impl EventInput<'_> {
    /// Converts it to an event; without an id it gets the one that `id` creates.
    pub(crate) fn into_event(
        self,
        id: impl FnOnce() -> EventId,
    ) -> Result<NewEvent, EventJsonError> {
        let data = bytes("data", self.data, self.data_base64)?;
        let metadata = bytes("metadata", self.metadata, self.metadata_base64)?.unwrap_or_default();
        let content_type = match self.content_type {
            None => ContentType::Json,
            Some(text) => content_type(&text).ok_or(EventJsonError::ContentType(text))?,
        };
        let data = data.unwrap_or_else(|| {
            if content_type == ContentType::Json {
                b"{}".to_vec()
            } else {
                Vec::new()
            }
        });
        let refused = |field| move |error| EventJsonError::Model { field, error };
        let tags = self.tags.all("event", "tags", "TAGS_PER_EVENT_MAX");
        let tags = tags.map_err(refused("tags"))?.into_iter().map(Tag::new);
        let tags: Vec<_> = tags.collect::<Result<_, _>>().map_err(refused("tags"))?;
        let event_type = EventType::new(self.event_type).map_err(refused("type"))?;
        let given: Option<EventId> = self
            .id
            .map(|id| id.parse())
            .transpose()
            .map_err(refused("id"))?;
        // Programs that have no id send the nil one.
        let id = given.filter(|id| !id.is_nil()).unwrap_or_else(id);
        let mut event = NewEvent::new_with_id(id, event_type, content_type, data)
            .with_metadata(metadata)
            .with_tags(tags)
            .map_err(refused("tags"))?;
        if let Some(given) = self.time {
            event = event.with_time(time(&given).ok_or(EventJsonError::Time { given })?);
        }
        Ok(event)
    }
}

/// Parses a line. An event without an id gets one derived from the line and its number.
///
/// # Errors
/// [`EventJsonError`]: what is wrong with it.
pub fn parse_line(line: &str, number: u64) -> Result<(StreamName, NewEvent), EventJsonError> {
    let mut given: EventInput<'_> = serde_json::from_str(line)?;
    let stream = given.stream.take().ok_or(EventJsonError::NoStream)?;
    let id = || EventId::derived(LINE_NAMESPACE, format!("{number}:{line}").as_bytes());
    let event = given.into_event(id)?;
    let stream = StreamName::new(stream).map_err(|error| EventJsonError::Model {
        field: "stream",
        error,
    })?;
    Ok((stream, event))
}

/// What is given is given, `null` too.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn bytes(
    field: &'static str,
    json: Option<&RawValue>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, EventJsonError> {
    match (json, base64) {
        (Some(_), Some(_)) => Err(EventJsonError::Twice(field)),
        (Some(json), None) => Ok(Some(json.get().as_bytes().to_vec())),
        (None, Some(text)) => BASE64_STANDARD
            .decode(text)
            .map(Some)
            .map_err(|source| EventJsonError::Base64 { field, source }),
        (None, None) => Ok(None),
    }
}

/// Returns the known encodings.
fn content_types() -> impl Iterator<Item = ContentType> {
    (1..=u8::MAX).map_while(ContentType::from_code)
}

/// Returns the media types that name them.
pub(crate) fn media_types() -> impl Iterator<Item = &'static str> {
    content_types().map(ContentType::media_type)
}

/// Returns the encoding with this media type.
pub(crate) fn content_type(text: &str) -> Option<ContentType> {
    content_types().find(|known| known.media_type() == text)
}

/// The last days of RFC 3339, which the library keeps its distance from, each with the day two days before.
const LAST_DAYS: [(&str, &str); 2] = [("9999-12-30", "9999-12-28"), ("9999-12-31", "9999-12-29")];
const TWO_DAYS_MICROS: i64 = 2 * 24 * 60 * 60 * 1_000_000;

/// Parses a time: RFC 3339, or the digits that [`time_text`] writes for a time that RFC 3339 cannot express. Drops digits
/// beyond microseconds.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Timestamp::from_micros);
    }
    let micros = |text: &str| Some(text.parse::<jiff::Timestamp>().ok()?.as_microsecond());
    let on_a_last_day = || {
        let mut days = LAST_DAYS.iter();
        let rest = days.find_map(|(day, before)| Some((before, text.strip_prefix(day)?)));
        let (before, rest) = rest?;
        Some(micros(&format!("{before}{rest}"))? + TWO_DAYS_MICROS)
    };
    let micros = micros(text).or_else(on_a_last_day)?;
    u64::try_from(micros).ok().map(Timestamp::from_micros)
}

/// Formats a time as in RFC 3339; one that RFC 3339 cannot express, as its microseconds since 1970.
#[must_use]
pub fn time_text(time: Timestamp) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let text = |micros| Some(jiff::Timestamp::from_microsecond(micros).ok()?.to_string());
    let on_a_last_day = || {
        let text = text(micros - TWO_DAYS_MICROS)?;
        let mut days = LAST_DAYS.iter();
        days.find_map(|(day, before)| Some(format!("{day}{}", text.strip_prefix(before)?)))
    };
    let known = text(micros).or_else(on_a_last_day);
    known.unwrap_or_else(|| time.as_micros().to_string())
}

/// An event in a response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventOutput<'a> {
    /// Its position in the log; the first event has 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    stream: &'a str,
    /// Its revision in the stream; the first event has 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(rename = "type")]
    event_type: &'a str,
    id: String,
    time: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
    /// Any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false)]
    metadata: Option<&'a RawValue>,
    /// Instead of `metadata` if that is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
    /// The media type of the data, if it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'static str>,
    /// Any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false)]
    data: Option<&'a RawValue>,
    /// Instead of `data` if that is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// The layout of JSON in its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// On a line, of which it is taken again byte for byte.
    Line,
    /// Anywhere in a document.
    Document,
}

impl<'a> EventOutput<'a> {
    /// Creates the JSON of an event, with its position and revision, in a document.
    pub(crate) fn with_position(event: &'a RecordedEvent) -> Self {
        Self {
            position: Some(event.position.get()),
            revision: Some(event.revision.get()),
            ..Self::within(event, Layout::Document)
        }
    }

    fn within(event: &'a RecordedEvent, room: Layout) -> Self {
        let is_json = event.content_type == ContentType::Json;
        let data = if is_json {
            raw(&event.data, room)
        } else {
            None
        };
        // A bare null would read as "not given".
        let metadata = raw(&event.metadata, room).filter(|metadata| metadata.get() != "null");
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        Self {
            position: None,
            stream: event.stream.as_str(),
            revision: None,
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
        }
    }
}

/// Writes an event as a line, without the line break. `places`: with position and revision.
///
/// # Errors
/// None that can be brought about; the type is that of the library that writes JSON.
pub fn format_line(event: &RecordedEvent, places: bool) -> Result<String, serde_json::Error> {
    serde_json::to_string(&EventOutput {
        position: places.then(|| event.position.get()),
        revision: places.then(|| event.revision.get()),
        ..EventOutput::within(event, Layout::Line)
    })
}

/// Returns the bytes unchanged, if they are JSON that fits the layout.
pub(crate) fn raw(bytes: &[u8], room: Layout) -> Option<&RawValue> {
    let text = std::str::from_utf8(bytes).ok()?;
    let value = serde_json::from_str::<&RawValue>(text).ok()?;
    let fits = match room {
        Layout::Line => !text.contains(['\n', '\r']) && value.get().len() == text.len(),
        Layout::Document => true,
    };
    fits.then_some(value)
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
    fn times_up_to_the_last_of_rfc_3339_are_read_in_every_form_and_written_in_one() {
        for (text, written) in [
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T23:59:59+00:00", "9999-12-31T23:59:59Z"),
            ("9999-12-31t23:59:59z", "9999-12-31T23:59:59Z"),
            ("9999-12-31T23:30:00+01:00", "9999-12-31T22:30:00Z"),
            ("9999-12-30T22:00:01Z", "9999-12-30T22:00:01Z"),
            ("9999-12-30T21:00:00Z", "9999-12-30T21:00:00Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59-02:00", "253402307999000000"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            let read = time(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(time_text(read), written, "{text}");
            assert_eq!(time(written), Some(read), "{text}");
        }
        for text in [
            "",
            "9999-12-31",
            "9999-12-31Z",
            "9999-12-32T00:00:00Z",
            "2024-01-01Z",
        ] {
            assert_eq!(time(text), None, "{text}");
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
                let line = format_line(&recorded(&event, stream.clone()), false).unwrap();
                let (read_stream, read) = parse_line(&line, 1).unwrap();
                assert_eq!((&read_stream, &read), (&stream, &event), "{line}");
                assert_eq!(
                    format_line(&recorded(&read, read_stream), false).unwrap(),
                    line
                );
            }
        }
    }

    #[test]
    fn a_null_is_data_like_any_other_and_no_metadata() {
        let line = r#"{"stream":"s","type":"T","data":null,"metadata":null}"#;
        let (_, event) = parse_line(line, 1).unwrap();
        assert_eq!(
            (&event.data()[..], &event.metadata()[..]),
            (&b"null"[..], &b""[..])
        );
        let (_, event) = parse_line(r#"{"stream":"s","type":"T"}"#, 1).unwrap();
        assert_eq!(&event.data()[..], b"{}");
    }

    #[test]
    fn json_on_several_lines_is_json_in_a_document_and_bytes_on_a_line() {
        let data: &[u8] = b"{\n  \"a\": 1\n}\n";
        let event = NewEvent::json(EventType::new("T").unwrap(), data.to_vec());
        let event = recorded(&event, StreamName::new("s").unwrap());
        let shown = serde_json::to_string(&EventOutput::with_position(&event)).unwrap();
        assert!(shown.contains("\"data\":{\n  \"a\": 1\n}}"), "{shown}");
        let line = format_line(&event, true).unwrap();
        assert!(
            line.contains("data_base64") && !line.contains('\n'),
            "{line}"
        );
    }

    #[test]
    fn a_line_without_an_id_gets_the_same_one_each_time() {
        let line = r#"{"stream":"s","type":"T","data":{}}"#;
        let id = |number| parse_line(line, number).unwrap().1.id();
        assert_eq!(id(1), id(1));
        assert_ne!(id(1), id(2));
    }

    #[test]
    fn a_bad_line_is_refused_in_words() {
        for (line, reason) in [
            ("{", "not an event"),
            (r#"{"type":"T"}"#, "stream is missing"),
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
            (
                &format!(
                    r#"{{"stream":"s","type":"T","tags":["x"{}]}}"#,
                    r#","x""#.repeat(64)
                ),
                "event has 65 tags",
            ),
        ] {
            let error = parse_line(line, 1).unwrap_err().to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
