//! Decoding `CloudEvents`.
//!
//! **Owns:** [`Attributes`], and the event they become. **Does not know:** how attributes are stored.
//! **Invariants:** an error names the attribute; nested values are refused before any of them is stored, so a request takes at
//! most a few times its length in memory.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use leftfold_model::{Bytes, ContentType, EventId, EventType, NewEvent, limits::APPEND_EVENTS_MAX};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::{
    POSITION, REVISION, STREAM, VERSION, content_type, metadata, source_of, tag_list, tag_text,
};
use crate::{
    json::{self, Bounded},
    protocol::http_api::{extract::JSON, problem::Problem},
};

/// The namespace of ids that are made from a source and an id that is not a UUID.
const ID_NAMESPACE: EventId = EventId::from_bytes(*b"leftfold-cloudid");
/// Maximum attributes of one event. Each costs more memory than its length; producers set about a dozen.
const ATTRIBUTES_MAX: usize = 256;
/// Maximum bytes of a value that a problem repeats.
const TOLD_BYTES_MAX: usize = 256;

/// The attributes of an event, by name.
#[derive(Debug)]
pub(in crate::protocol::http_api) struct Attributes<'a> {
    named: BTreeMap<Cow<'a, str>, &'a RawValue>,
    count: usize,
}

impl<'de> Deserialize<'de> for Attributes<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AttributesVisitor)
    }
}

struct AttributesVisitor;

impl<'de> Visitor<'de> for AttributesVisitor {
    type Value = Attributes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event of CloudEvents, an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut named, mut count) = (BTreeMap::new(), 0);
        while count < ATTRIBUTES_MAX {
            let Some(Name(name)) = map.next_key()? else {
                return Ok(Attributes { named, count });
            };
            if named.contains_key(&name) {
                return Err(A::Error::custom(format_args!("{name:?} is given twice")));
            }
            named.insert(name, map.next_value()?);
            count += 1;
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Attributes { named, count })
    }
}

/// A name, borrowed where it can be.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Decodes the events of a request for a stream.
pub(in crate::protocol::http_api) fn events(
    given: Bounded<Attributes<'_>, APPEND_EVENTS_MAX>,
    stream: &str,
) -> Result<Vec<NewEvent>, Problem> {
    let given = given.all("append", "events", "APPEND_EVENTS_MAX");
    let given = given.map_err(|error| Problem::of_model("events", &error))?;
    let given = given.into_iter().enumerate();
    given
        .map(|(index, attributes)| {
            let given = IncomingEvent {
                named: attributes.named,
                prefix: format!("events[{index}]."),
                body: None,
            };
            given.checked(attributes.count)?.into_event(stream)
        })
        .collect()
}

/// Decodes an event from its attributes and its data.
pub(super) fn event_with_data(
    attributes: Attributes<'_>,
    prefix: &str,
    data: Bytes,
    stream: &str,
) -> Result<NewEvent, Problem> {
    let given = IncomingEvent {
        named: attributes.named,
        prefix: prefix.to_owned(),
        body: Some(data),
    };
    given.checked(attributes.count)?.into_event(stream)
}

/// An event with its place in the request.
struct IncomingEvent<'a> {
    named: BTreeMap<Cow<'a, str>, &'a RawValue>,
    /// The prefix of the names of attributes in the request.
    prefix: String,
    /// The data, if it is not an attribute.
    body: Option<Bytes>,
}

impl<'a> IncomingEvent<'a> {
    /// Refuses an event with too many attributes or invalid names.
    fn checked(self, count: usize) -> Result<Self, Problem> {
        if count > ATTRIBUTES_MAX {
            let limit = serde_json::json!({"unit": "attributes", "max": ATTRIBUTES_MAX});
            let text = format!("{count} attributes; allowed are {ATTRIBUTES_MAX}");
            let field = self.prefix.trim_end_matches(['.', '-']);
            return Err(Problem::invalid(field, text).with_value_and_limit(count, limit));
        }
        let is_data = |name: &str| name == "data" || name == "data_base64";
        let wrong = |name: &&Cow<'_, str>| match self.body {
            None => !metadata::is_name(name) && **name != "data_base64",
            Some(_) => !metadata::is_name(name) || is_data(name),
        };
        if let Some(name) = self.named.keys().find(wrong) {
            let text = "not a name of an attribute";
            return Err(self
                .problem(name, text)
                .with_value_and_limit(&**name, "a to z and 0 to 9"));
        }
        Ok(self)
    }

    fn into_event(mut self, stream: &str) -> Result<NewEvent, Problem> {
        let version = self.required("specversion")?;
        if version != VERSION {
            let problem = self.problem("specversion", "not a version that is known");
            return Err(problem.with_value_and_limit(version, VERSION));
        }
        if let Some(other) = self.text(STREAM)?.filter(|other| other != stream) {
            let field = self.prefix.trim_end_matches(['.', '-']);
            return Err(Problem::stream_mismatch(field, &other, stream));
        }
        for place in [POSITION, REVISION] {
            self.named.remove(place);
        }
        let (id_text, source) = (self.required("id")?, self.required("source")?);
        let id = event_id(&source, &id_text, stream);
        let event_type = EventType::new(self.required("type")?);
        let event_type = event_type.map_err(|error| self.refused("type", &error))?;
        let media_type = self.text("datacontenttype")?;
        let content_type = content_type(media_type.as_deref().unwrap_or(JSON));
        let data = self.data(content_type)?;
        let (tags, time) = (self.text("tags")?, self.text("time")?);
        let given = tag_list(tags.as_deref().unwrap_or_default());
        let given = given.map_err(|error| self.refused("tags", &error))?;
        let event = NewEvent::new_with_id(id, event_type, content_type, data);
        let event = event
            .with_tags(given)
            .map_err(|error| self.refused("tags", &error))?;
        let (event, time) = self.timed(event, time)?;

        // What would come back in other words is kept in those of the producer.
        let tags = tags.filter(|text| text.is_empty() || *text != tag_text(event.tags()));
        let media_type = media_type.filter(|text| text != content_type.media_type());
        let id_text = Some(id_text).filter(|text| *text != id.to_string());
        let mut kept = self.others()?;
        let words = [
            ("source", Some(source)),
            ("id", id_text),
            ("time", time),
            ("datacontenttype", media_type),
            ("tags", tags),
        ];
        let words = words
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
        kept.extend(words);
        Ok(event.with_metadata(metadata::metadata(kept)))
    }

    fn problem(&self, name: &str, text: &str) -> Problem {
        Problem::invalid(format!("{}{name}", self.prefix), text)
    }

    fn refused(&self, name: &str, error: &leftfold_model::ModelError) -> Problem {
        Problem::of_model(format!("{}{name}", self.prefix), error)
    }

    /// Takes an attribute that is text. A null means that it is not set.
    fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(value) = self.named.remove(name).filter(|value| !is_null(value)) else {
            return Ok(None);
        };
        serde_json::from_str(value.get()).map(Some).map_err(|_| {
            self.problem(name, "not text")
                .with_value_and_limit(as_value(value), "text")
        })
    }

    /// Takes an attribute that must be set.
    fn required(&mut self, name: &str) -> Result<String, Problem> {
        let limit = "text of at least one character";
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(text) => Err(self
                .problem(name, "empty")
                .with_value_and_limit(text, limit)),
            None => Err(self
                .problem(name, "missing")
                .with_value_and_limit(Value::Null, limit)),
        }
    }

    fn data(&mut self, content_type: ContentType) -> Result<Bytes, Problem> {
        if let Some(body) = self.body.take() {
            let is_json = || serde_json::from_slice::<IgnoredAny>(&body);
            if content_type == ContentType::Json
                && !body.is_empty()
                && let Err(error) = is_json()
            {
                return Err(Problem::invalid("body", format!("not JSON: {error}")));
            }
            return Ok(body);
        }
        self.data_of_attributes(content_type).map(Bytes::from)
    }

    fn data_of_attributes(&mut self, content_type: ContentType) -> Result<Vec<u8>, Problem> {
        const BASE64: &str = "data_base64";
        let (data, base64) = (self.named.remove("data"), self.text(BASE64)?);
        match (data.filter(|value| !is_null(value)), base64) {
            (Some(_), Some(_)) => Err(self.problem(BASE64, "not together with data")),
            (None, Some(text)) => BASE64_STANDARD.decode(&text).map_err(|error| {
                let problem = self.problem(BASE64, &format!("not base64: {error}"));
                problem.with_value_and_limit(text.as_str(), "base64")
            }),
            (Some(value), None) if content_type != ContentType::Json => {
                // Text of another type is written as a string of JSON; anything else stands for itself.
                let text = serde_json::from_str::<String>(value.get());
                Ok(text.map_or_else(|_| value.get().into(), String::into_bytes))
            }
            (Some(value), None) => Ok(value.get().into()),
            // Unlike an attribute, data may be null; in another media type that says nothing.
            (None, None) if content_type == ContentType::Json => {
                Ok(data.map_or_else(Vec::new, |null| null.get().into()))
            }
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Adds the time to the event, and its text to the stored attributes if it would be returned differently.
    fn timed(
        &self,
        event: NewEvent,
        given: Option<String>,
    ) -> Result<(NewEvent, Option<String>), Problem> {
        let Some(given) = given else {
            return Ok((event, None));
        };
        let Some(time) = json::time(&given) else {
            let problem = self.problem("time", "not a time");
            return Err(problem.with_value_and_limit(given, "RFC 3339, from 1970 on"));
        };
        let differs = json::time_text(time) != given;
        Ok((event.with_time(time), Some(given).filter(|_| differs)))
    }

    /// Takes the attributes without a field in an event.
    fn others(&mut self) -> Result<Map<String, Value>, Problem> {
        let mut others = Map::new();
        for (name, value) in std::mem::take(&mut self.named) {
            if is_null(value) {
                continue;
            }
            let plain = Some(value.get()).filter(|json| !json.starts_with(['[', '{']));
            let plain = plain.and_then(|json| serde_json::from_str(json).ok());
            let Some(plain) = plain.filter(metadata::is_value) else {
                let problem = self.problem(&name, "not a value of an attribute");
                let limit = "text, a boolean or an integer of 32 bits";
                return Err(problem.with_value_and_limit(as_value(value), limit));
            };
            others.insert(name.into_owned(), plain);
        }
        Ok(others)
    }
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Converts a value for a problem.
fn as_value(value: &RawValue) -> Value {
    let json = value.get();
    if json.len() > TOLD_BYTES_MAX {
        return json.into();
    }
    serde_json::from_str(json).unwrap_or_default()
}

/// Derives the event id from source and id, which together identify a `CloudEvent`.
///
/// An event whose source is the stream itself keeps its id, if it is spelled as responses spell it: ids are compared as texts.
/// The length distinguishes pairs that would be equal when joined.
fn event_id(source: &str, id: &str, stream: &str) -> EventId {
    let own = Some(id).filter(|_| source == source_of(stream));
    let own = own.and_then(|id| id.parse().ok());
    let named = || format!("{}:{source}{id}", source.len());
    own.filter(|own: &EventId| !own.is_nil() && own.to_string() == id)
        .unwrap_or_else(|| EventId::derived(ID_NAMESPACE, named().as_bytes()))
}
