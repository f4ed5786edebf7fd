//! Events as `CloudEvents` 1.0: in JSON, in and out; in binary mode of HTTP, in.
//!
//! **Owns:** the names of `CloudEvents`, and [`CloudEvent`], an event in their format. **Does not know:** routes.
//! **Invariants:** no attribute is lost: attributes without a field in an event are stored in its metadata under one key, and
//! are returned from there; JSON data is stored byte for byte.
//! **Reading order:** `decode` and `binary` read requests; `metadata` stores attributes; [`CloudEvent`] writes responses.
//!
//! Source: `CloudEvents` specification 1.0.2, its JSON event format and JSON batch format and HTTP binding.

mod binary;
mod decode;
mod metadata;

pub(super) use binary::binary_event;
pub(super) use decode::{Attributes, events};

use base64::{Engine, prelude::BASE64_STANDARD};
use leftfold_model::{ContentType, ModelError, RecordedEvent, Tag};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use utoipa::ToSchema;

use crate::json::{self, Layout};

/// The media type of one.
pub(super) const ONE: &str = "application/cloudevents+json";
/// The media type of a list.
pub(super) const BATCH: &str = "application/cloudevents-batch+json";
/// The supported version.
const VERSION: &str = "1.0";

/// The attribute of the position: added to responses, and ignored in requests.
const POSITION: &str = "position";
const REVISION: &str = "revision";
const STREAM: &str = "stream";

/// An event in the format of `CloudEvents`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CloudEvent<'a> {
    /// Always 1.0.
    specversion: &'static str,
    /// Unique within its source.
    id: String,
    /// Its source, a URI reference.
    source: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    /// RFC 3339.
    #[schema(required = false)]
    time: String,
    /// The media type of the data; without it JSON.
    #[schema(required = false)]
    datacontenttype: String,
    /// The tags, separated by commas; in a tag `%` and `,` are written `%25` and `%2C`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<String>,
    /// Any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false)]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    /// All other attributes: `subject`, `dataschema`, extensions. In responses also `position`, `revision` and `stream`.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl<'a> CloudEvent<'a> {
    /// Converts an event.
    pub(super) fn of(event: &'a RecordedEvent) -> Self {
        let mut others = metadata::attributes(event)
            .unwrap_or_else(|| metadata::foreign_metadata(&event.metadata));
        let mut text = |name: &str| match others.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (id, source, time) = (text("id"), text("source"), text("time"));
        let (datacontenttype, tags) = (text("datacontenttype"), text("tags"));
        let place = [
            (POSITION, event.position.to_string()),
            (REVISION, event.revision.to_string()),
            (STREAM, event.stream.to_string()),
        ];
        others.extend(place.map(|(name, value)| (name.to_owned(), value.into())));
        let data = match event.content_type {
            ContentType::Json => json::raw(&event.data, Layout::Document),
            _ => None,
        };
        let media_type = event.content_type.media_type();
        Self {
            specversion: VERSION,
            id: id.unwrap_or_else(|| event.id.to_string()),
            source: source.unwrap_or_else(|| source_of(event.stream.as_str())),
            event_type: event.event_type.as_str(),
            time: time.unwrap_or_else(|| json::time_text(event.time)),
            datacontenttype: datacontenttype.unwrap_or_else(|| media_type.to_owned()),
            tags: tags.or_else(|| (!event.tags.is_empty()).then(|| tag_text(&event.tags))),
            data_base64: (data.is_none() && !event.data.is_empty())
                .then(|| BASE64_STANDARD.encode(&event.data)),
            data,
            others,
        }
    }
}

/// Returns the source of events without another one: their stream.
fn source_of(stream: &str) -> String {
    let stream = super::percent_encode(stream);
    format!("{}/streams/{stream}", super::BASE)
}

/// Encodes tags as one text.
fn tag_text(tags: &[Tag]) -> String {
    let tags = tags.iter().map(Tag::as_str);
    let tags: Vec<_> = tags
        .map(|tag| tag.replace('%', "%25").replace(',', "%2C"))
        .collect();
    tags.join(",")
}

/// Decodes tags from such a text.
fn tag_list(text: &str) -> Result<Vec<Tag>, ModelError> {
    let parts = text.split(',').filter(|_| !text.is_empty());
    parts
        .map(|part| Tag::new(part.replace("%2C", ",").replace("%25", "%")))
        .collect()
}

/// Returns the encoding of a media type. All media types of JSON share one code, unknown ones another.
fn content_type(media_type: &str) -> ContentType {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let subtype = essence.split_once('/').map(|(_, subtype)| subtype);
    if subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json")) {
        return ContentType::Json;
    }
    json::content_type(&essence).unwrap_or(ContentType::Binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_media_type_of_json_is_json() {
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "text/json",
            "application/vnd.example+json",
        ] {
            assert_eq!(content_type(json), ContentType::Json, "{json}");
        }
        assert_eq!(content_type("application/cbor"), ContentType::Cbor);
        for other in ["json", "text/plain", "application/jsonp", "image/png", ""] {
            assert_eq!(content_type(other), ContentType::Binary, "{other}");
        }
    }

    #[test]
    fn tags_are_one_text_and_come_out_of_it() {
        let tags = ["50%", "a,b", "c"].map(|tag| Tag::new(tag).unwrap());
        assert_eq!(tag_text(&tags), "50%25,a%2Cb,c");
        assert_eq!(tag_list("50%25,a%2Cb,c").unwrap(), tags);
        assert!(tag_list("").unwrap().is_empty());
        tag_list("a,,b").unwrap_err();
    }
}
