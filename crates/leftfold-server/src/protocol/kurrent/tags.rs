//! Tags of events, which this wire carries in metadata.
//!
//! **Owns:** the key `$tags` of an event's metadata. **Does not know:** what tags mean.
//! **Invariants:** metadata is stored unchanged; tags are added to it only in responses, and only if it is a JSON object.

use leftfold_model::{ModelError, Tag};
use serde::Deserialize;
use serde_json::value::RawValue;

const KEY: &str = "$tags";

#[derive(Deserialize)]
struct Tagged {
    #[serde(rename = "$tags", default)]
    tags: Vec<String>,
}

/// Parses the tags in metadata; none if it has no list of texts.
pub(super) fn parse(metadata: &[u8]) -> Result<Vec<Tag>, ModelError> {
    if !names_tags(metadata) {
        return Ok(Vec::new());
    }
    let Ok(Tagged { mut tags }) = serde_json::from_slice(metadata) else {
        return Ok(Vec::new());
    };
    tags.sort_unstable();
    tags.dedup();
    tags.into_iter().map(Tag::new).collect()
}

/// Returns metadata with these tags; `memory` is a buffer for it.
pub(super) fn shown<'a>(metadata: &'a [u8], tags: &[Tag], memory: &'a mut Vec<u8>) -> &'a [u8] {
    if tags.is_empty() || names_tags(metadata) {
        return metadata;
    }
    let trimmed = metadata.trim_ascii();
    let is_json = || serde_json::from_slice::<&RawValue>(trimmed).is_ok();
    let rest = match trimmed.strip_prefix(b"{") {
        None if trimmed.is_empty() => &b"}"[..],
        Some(rest) if is_json() => rest.trim_ascii(),
        _ => return metadata,
    };
    memory.clear();
    memory.extend_from_slice(b"{\"$tags\":");
    let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    if serde_json::to_writer(&mut *memory, &names).is_err() {
        return metadata;
    }
    if rest != b"}" {
        memory.push(b',');
    }
    memory.extend_from_slice(rest);
    memory
}

fn names_tags(metadata: &[u8]) -> bool {
    metadata
        .windows(KEY.len())
        .any(|window| window == KEY.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| Tag::new(*name).unwrap()).collect()
    }

    #[test]
    fn tags_are_taken_from_a_list_of_texts_and_from_nothing_else() {
        let named = |json: &str| parse(json.as_bytes()).unwrap();
        assert_eq!(named(r#"{"$tags":["b","a","b"],"x":1}"#), tags(&["a", "b"]));
        for other in [
            r#"{"$tags":"a"}"#,
            r#"{"$tags":[1]}"#,
            r#"["$tags"]"#,
            "",
            "$tags",
            "{}",
        ] {
            assert_eq!(named(other), tags(&[]), "{other}");
        }
        assert!(parse(br#"{"$tags":[""]}"#).is_err());
    }

    #[test]
    fn tags_are_shown_in_objects_that_do_not_show_them() {
        let with = |metadata: &str, names: &[&str]| {
            let mut memory = Vec::new();
            let shown = shown(metadata.as_bytes(), &tags(names), &mut memory);
            String::from_utf8(shown.to_vec()).unwrap()
        };
        let show = |metadata: &str| with(metadata, &["a", "\"b"]);
        assert_eq!(show(""), r#"{"$tags":["a","\"b"]}"#);
        assert_eq!(show("{ }"), r#"{"$tags":["a","\"b"]}"#);
        assert_eq!(show(r#" {"x":1} "#), r#"{"$tags":["a","\"b"],"x":1}"#);
        for untouched in ["[1]", "bytes", "{broken", r#"{"$tags":[]}"#] {
            assert_eq!(show(untouched), untouched);
        }
        assert_eq!(with("{}", &[]), "{}");
    }
}
