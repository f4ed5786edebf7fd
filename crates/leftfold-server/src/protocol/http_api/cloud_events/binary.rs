//! `CloudEvents` in binary mode: attributes as headers, data as body.
//!
//! **Owns:** [`binary_event`]: reading the headers. **Does not know:** what attributes mean; `decode` does.
//! **Invariants:** no header of an event is dropped: what cannot be an attribute is refused by its name.
//!
//! Source: `CloudEvents` HTTP protocol binding 1.0.2, section 3.1.

use axum::http::{
    HeaderMap,
    header::{CONTENT_TYPE, HeaderName},
};
use leftfold_model::{Bytes, NewEvent};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::decode::{self, Attributes};
use crate::protocol::http_api::{
    extract::{CLOUD_EVENTS_PREFIX, JSON},
    problem::Problem,
};

/// The attribute of the header `content-type`.
const MEDIA_TYPE: &str = "datacontenttype";
/// The media type of data without one that is not JSON.
const BINARY: &str = "application/octet-stream";

/// Decodes the event that the headers describe.
pub(in crate::protocol::http_api) fn binary_event(
    headers: &HeaderMap,
    body: &Bytes,
    stream: &str,
) -> Result<NewEvent, Problem> {
    let mut attributes = Map::new();
    for name in headers.keys().map(HeaderName::as_str) {
        let Some(attribute) = name.strip_prefix(CLOUD_EVENTS_PREFIX) else {
            continue;
        };
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Problem::invalid(name, "given twice"));
        };
        let wrong = |text: &str| {
            let problem = Problem::invalid(name, text);
            problem.with_value_and_limit(format!("{value:?}"), "UTF-8, percent-encoded")
        };
        if attribute == MEDIA_TYPE {
            return Err(wrong("not a header of its own: it is content-type"));
        }
        let text = percent_decode(value.as_bytes()).ok_or_else(|| wrong("not UTF-8"))?;
        attributes.insert(attribute.to_owned(), text.into());
    }
    match headers.get(CONTENT_TYPE) {
        Some(value) => {
            let text = value.to_str().map_err(|_| {
                let problem = Problem::invalid(CONTENT_TYPE.as_str(), "not text");
                problem.with_value(format!("{value:?}"))
            })?;
            attributes.insert(MEDIA_TYPE.to_owned(), text.into());
        }
        // Data without a type is what it can be read as.
        None if body.is_empty() => {}
        None => {
            let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
            let media_type = if is_json { JSON } else { BINARY };
            attributes.insert(MEDIA_TYPE.to_owned(), media_type.into());
        }
    }
    let json = Value::Object(attributes).to_string();
    let attributes: Attributes<'_> = serde_json::from_str(&json)
        .map_err(|error| Problem::invalid("headers", error.to_string()))?;
    decode::event_with_data(attributes, CLOUD_EVENTS_PREFIX, body.clone(), stream)
}

/// Decodes the text of a header's value; `None` if it is invalid. A percent sign that begins no code stands for itself.
fn percent_decode(value: &[u8]) -> Option<String> {
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    let mut rest = quoted.unwrap_or(value).iter().copied();
    let mut out = Vec::with_capacity(value.len());
    while let Some(byte) = rest.next() {
        let mut after = rest.clone();
        let digits = [after.next(), after.next()].map(|digit| {
            let digit = char::from(digit?).to_digit(16)?;
            u8::try_from(digit).ok()
        });
        match (byte, digits) {
            (b'%', [Some(high), Some(low)]) => {
                out.push(high << 4 | low);
                rest = after;
            }
            // Within quotes, a backslash stands before what is meant as it is.
            (b'\\', _) if quoted.is_some() => out.extend(rest.next()),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_headers_are_text_in_percent_encoding_or_quotes() {
        let decode = |value: &str| percent_decode(value.as_bytes());
        assert_eq!(decode("a%20%E2%82%AC").as_deref(), Some("a \u{20ac}"));
        assert_eq!(decode("100%").as_deref(), Some("100%"));
        assert_eq!(decode("%zz%4").as_deref(), Some("%zz%4"));
        assert_eq!(decode(r#""a \"b\" \\""#).as_deref(), Some(r#"a "b" \"#));
        assert_eq!(decode("%FF"), None);
    }
}
