//! Tags of events, which this wire carries in metadata.
//!
//! **Owns:** the key `$tags` of an event's metadata. **Does not know:** what tags mean.
//! **Invariants:** metadata is stored unchanged; tags are added to it only in responses, and only if it is a JSON object.

use leftfold_model::{ModelError, Tag};

use crate::json::member;

const KEY: &str = "$tags";

/// Parses the tags in metadata; none if it is no object with a list of texts.
pub(super) fn parse(metadata: &[u8]) -> Result<Vec<Tag>, ModelError> {
    if !may_have_tags(metadata) {
        return Ok(Vec::new());
    }
    let listed = member(metadata, KEY).ok().flatten();
    let listed = listed.and_then(|list| serde_json::from_str::<Vec<String>>(list.get()).ok());
    let Some(mut tags) = listed else {
        return Ok(Vec::new());
    };
    tags.sort_unstable();
    tags.dedup();
    tags.into_iter().map(Tag::new).collect()
}

/// Returns metadata with these tags; `memory` is a buffer for it.
pub(super) fn shown<'a>(metadata: &'a [u8], tags: &[Tag], memory: &'a mut Vec<u8>) -> &'a [u8] {
    if tags.is_empty() {
        return metadata;
    }
    let trimmed = metadata.trim_ascii();
    let lacks_tags = || member(trimmed, KEY).is_ok_and(|tags| tags.is_none());
    let rest = match trimmed.strip_prefix(b"{") {
        None if trimmed.is_empty() => &b"}"[..],
        Some(rest) if lacks_tags() => rest.trim_ascii(),
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

/// Whether metadata is worth parsing: an object that contains the key, or text in which the key may be escaped.
fn may_have_tags(metadata: &[u8]) -> bool {
    let mut windows = metadata.windows(KEY.len());
    metadata.trim_ascii_start().starts_with(b"{")
        && (metadata.contains(&b'\\') || windows.any(|window| window == KEY.as_bytes()))
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
        assert_eq!(named(r#" {"\u0024tags":["a"]}"#), tags(&["a"]));
        // Whatever stands beside it; of two lists the later counts, as it does for most readers.
        for beside in [r#""\ud800":1"#, r#""n":1e999"#, r#""$tags":["b"]"#] {
            let metadata = format!(r#"{{{beside},"$tags":["a"]}}"#);
            assert_eq!(named(&metadata), tags(&["a"]), "{metadata}");
        }
        for other in [
            r#"{"$tags":"a"}"#,
            r#"{"$tags":[1]}"#,
            r#"["$tags"]"#,
            r#"[["$tags"]]"#,
            r#"{"x":{"$tags":["a"]}}"#,
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
        // Text that is no key of the object hides nothing.
        for (metadata, added) in [
            (r#"{"x":"$tags"}"#, r#""x":"$tags"}"#),
            (r#"{"x":{"$tags":[]}}"#, r#""x":{"$tags":[]}}"#),
            (r#"{"\ud800":1e999}"#, r#""\ud800":1e999}"#),
        ] {
            let expected = format!("{{\"$tags\":[\"a\",\"\\\"b\"],{added}");
            assert_eq!(show(metadata), expected);
        }
        for untouched in [
            "[1]",
            "bytes",
            "{broken",
            r#"{"$tags":[]}"#,
            r#"{"$tags":null}"#,
            r#"{"\u0024tags":[]}"#,
        ] {
            assert_eq!(show(untouched), untouched);
        }
        assert_eq!(with("{}", &[]), "{}");
    }
}
