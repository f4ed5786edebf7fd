//! Sealing and opening the personal fields of an event's JSON.
//!
//! **Owns:** the form of a sealed value, what is bound to it, and finding the fields. **Does not know:** stores, where
//! keys are.
//! **Invariants:** a nonce is random and of 24 bytes, so none repeats under a key; the event's type, the field, and the subject
//! are authenticated with the value, so it opens nowhere else; all other fields keep their bytes.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use chacha20poly1305::{
    Key, XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use leftfold_store::keys::{KeyError, KeyId, SubjectKey};

use super::personal::{FORGOTTEN, PLAIN, SEALED};

/// The key under which a value stands on its way to being sealed, with kind and id of its subject.
const TO_SEAL: &str = "$seal";
/// The version of the sealed form.
const VERSION: &str = "1";
const NONCE_BYTES: usize = 24;

/// A personal field of an event type, as derived code declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PersonalField {
    /// The type of the event.
    pub event_type: &'static str,
    /// The field.
    pub field: &'static str,
    /// The kind of its subject.
    pub subject: &'static str,
    /// The field that names the subject.
    pub id_field: &'static str,
}

/// A sealed value was changed, or stands in another event or field than the one it was sealed for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("sealed value of field {field:?} is not the one that was stored there")]
pub(super) struct NotAuthentic {
    field: String,
}

/// The entries of a JSON object in their order, each value as its text: borrowed as it stood there, or replaced.
pub(super) struct Fields<'a>(Vec<(Name<'a>, Cow<'a, str>)>);

/// The name of an entry.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    fields.push((name, Cow::Borrowed(value.get())));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// An object with one key, of those that stand for personal values.
#[derive(Deserialize)]
struct Marked<'a> {
    #[serde(rename = "$personal", borrow, default, deserialize_with = "present")]
    plain: Option<&'a RawValue>,
    #[serde(rename = "$seal", borrow)]
    to_seal: Option<(String, String, &'a RawValue)>,
    #[serde(rename = "$sealed", borrow)]
    sealed: Option<Cow<'a, str>>,
}

/// Reads a value that is there, even if it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn marked<'a>(text: &'a str, key: &str) -> Option<Marked<'a>> {
    let begins = text.strip_prefix("{\"").and_then(|t| t.strip_prefix(key));
    begins?.strip_prefix('"')?;
    serde_json::from_str(text).ok()
}

/// Whether a text stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    // All bytes are looked at, without a branch for each.
    let special = text.bytes().map(|byte| byte == b'"' || byte == b'\\');
    !special.fold(false, |any, one| any | one)
}

/// The text of a sealed value.
fn sealed_text(value: &str) -> Option<Cow<'_, str>> {
    let text = value.strip_prefix("{\"$sealed\":\"");
    let text = text.and_then(|text| text.strip_suffix("\"}"));
    match text {
        // As this version writes it.
        Some(text) if is_plain(text) => Some(Cow::Borrowed(text)),
        _ => marked(value, SEALED)?.sealed,
    }
}

/// Returns the names of the keys that the sealed fields of an event need, and of those that any other text in it names
/// in that form.
pub(super) fn key_ids(data: &[u8]) -> impl Iterator<Item = KeyId> {
    let text = std::str::from_utf8(data).unwrap_or_default();
    text.match_indices(SEALED).filter_map(move |(at, key)| {
        let behind = text.get(at + key.len()..)?.strip_prefix('"')?;
        let value = behind.trim_start().strip_prefix(':')?.trim_start();
        let sealed = value.strip_prefix('"')?.split('"').next()?;
        Sealed::key_id(sealed.splitn(4, ':').nth(3)?)
    })
}

impl<'a> Fields<'a> {
    /// Reads the fields of an event if one of them may be marked by `key`.
    fn of(data: &'a [u8], key: &str) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?;
        text.contains(key)
            .then(|| serde_json::from_str(text).ok())?
    }

    pub(super) fn to_seal(data: &'a [u8]) -> Option<Self> {
        Self::of(data, TO_SEAL)
    }

    pub(super) fn sealed(data: &'a [u8]) -> Option<Self> {
        Self::of(data, SEALED)
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let bytes = self
            .0
            .iter()
            .map(|(name, value)| name.0.len() + value.len() + 4);
        let mut json = Vec::with_capacity(bytes.sum::<usize>() + 2);
        json.push(b'{');
        for (nth, (name, value)) in self.0.iter().enumerate() {
            if nth > 0 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, &name.0)?;
            json.push(b':');
            json.extend_from_slice(value.as_bytes());
        }
        json.push(b'}');
        Ok(json)
    }

    /// The text of a field that names a subject: a text or a number.
    fn id(&self, field: &str) -> Option<String> {
        let (_, value) = self.0.iter().find(|(name, _)| name.0 == field)?;
        let plain = value
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        if let Some(text) = plain.filter(|text| is_plain(text)) {
            return Some(text.to_owned());
        }
        match serde_json::from_str(value).ok()? {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(_) => Some(value.clone().into_owned()),
            _ => None,
        }
    }

    /// Notes beside each personal field of an event type whose it is. `Err`: the field that does not name a subject.
    pub(super) fn mark(&mut self, of: &[PersonalField]) -> Result<(), &'static str> {
        for personal in of {
            let id = self.id(personal.id_field).ok_or(personal.id_field)?;
            for (name, value) in &mut self.0 {
                let plain = marked(value, PLAIN).and_then(|marked| marked.plain);
                if name.0 == personal.field
                    && let Some(plain) = plain
                {
                    let kind = serde_json::Value::from(format!(
                        "{}:{}",
                        personal.subject, personal.id_field
                    ));
                    let id = serde_json::Value::from(id.clone());
                    let text = format!("{{\"{TO_SEAL}\":[{kind},{id},{plain}]}}");
                    *value = Cow::Owned(text);
                }
            }
        }
        Ok(())
    }

    /// Returns the kind and the id of each subject with a field to seal.
    pub(super) fn subjects(&self) -> Vec<(String, String)> {
        let fields = self.0.iter();
        let marks = fields.filter_map(|(_, value)| marked(value, TO_SEAL)?.to_seal);
        let subjects =
            marks.filter_map(|(kind, id, _)| Some((kind.split_once(':')?.0.to_owned(), id)));
        subjects.collect()
    }

    /// Seals the marked fields.
    pub(super) fn seal(
        &mut self,
        event_type: &str,
        mut key_of: impl FnMut(&str, &str) -> Option<SubjectKey>,
    ) -> Result<(), KeyError> {
        for (name, value) in &mut self.0 {
            let to_seal = marked(value, TO_SEAL).and_then(|marked| marked.to_seal);
            let Some((kind, id, plain)) = to_seal else {
                continue;
            };
            let unsealed = || KeyError::Unavailable {
                reason: format!("field {:?} has no key", name.0),
            };
            let (subject, id_field) = kind.split_once(':').ok_or_else(unsealed)?;
            let key = key_of(subject, &id).ok_or_else(unsealed)?;
            let bound = bound(event_type, &name.0, subject, &id);
            let bytes = encrypt(&key, plain.get().as_bytes(), &bound)?;
            let text = format!(
                "{VERSION}:{subject}:{id_field}:{}",
                STANDARD_NO_PAD.encode(bytes)
            );
            let sealed = serde_json::Value::String(text);
            *value = Cow::Owned(format!("{{\"{SEALED}\":{sealed}}}"));
        }
        Ok(())
    }

    /// Opens the sealed fields, and notes of those without a key that they were forgotten.
    pub(super) fn open<'k>(
        &mut self,
        event_type: &str,
        key_of: impl Fn(&KeyId) -> Option<&'k SubjectKey>,
    ) -> Result<(), NotAuthentic> {
        // Subjects are named by fields of the event as it is stored, so all are looked up before any is opened.
        let mut sealed = Vec::new();
        for (nth, (_, value)) in self.0.iter().enumerate() {
            if let Cow::Borrowed(value) = *value
                && let Some(text) = sealed_text(value)
                && let Some(found) = Sealed::parse(&text)
                && let Some(id) = self.id(found.id_field)
            {
                sealed.push((nth, text, id));
            }
        }
        for (nth, text, id) in sealed {
            let (Some((name, value)), Some(sealed)) = (self.0.get_mut(nth), Sealed::parse(&text))
            else {
                continue;
            };
            let not_authentic = || NotAuthentic {
                field: name.0.clone().into_owned(),
            };
            let key_id = Sealed::key_id(sealed.encoded).ok_or_else(not_authentic)?;
            *value = Cow::Owned(match key_of(&key_id) {
                None => format!("{{\"{FORGOTTEN}\":true}}"),
                Some(key) => {
                    let bound = bound(event_type, &name.0, sealed.subject, &id);
                    let bytes = STANDARD_NO_PAD.decode(sealed.encoded).ok();
                    let plain = bytes.and_then(|bytes| decrypt(key, &bytes, &bound));
                    let plain = plain.and_then(|plain| String::from_utf8(plain).ok());
                    let plain = plain.ok_or_else(not_authentic)?;
                    format!("{{\"{PLAIN}\":{plain}}}")
                }
            });
        }
        Ok(())
    }
}

/// Whether JSON holds a personal value that is not marked for being sealed. Quotes within texts are escaped, so no text
/// looks like it.
pub(super) fn holds_plain(json: &[u8]) -> bool {
    let text = String::from_utf8_lossy(json);
    text.contains(&format!("{{\"{PLAIN}\":"))
}

/// A sealed value, taken apart.
struct Sealed<'a> {
    subject: &'a str,
    id_field: &'a str,
    /// The name of the key, the nonce, and what was encrypted.
    encoded: &'a str,
}

impl<'a> Sealed<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let (version, subject, id_field) = (parts.next()?, parts.next()?, parts.next()?);
        let encoded = parts.next()?;
        (version == VERSION).then_some(Self {
            subject,
            id_field,
            encoded,
        })
    }

    /// Decodes the beginning of what is encoded, without the rest.
    fn key_id(encoded: &str) -> Option<KeyId> {
        let mut beginning = [0; 18];
        let bytes = STANDARD_NO_PAD.decode_slice(encoded.get(..24)?, &mut beginning);
        bytes.ok()?;
        beginning.first_chunk().copied()
    }
}

/// What is authenticated with a value, each part with its length.
fn bound(event_type: &str, field: &str, subject: &str, id: &str) -> Vec<u8> {
    let mut bound = Vec::new();
    for part in [VERSION, event_type, field, subject, id] {
        bound.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bound.extend_from_slice(part.as_bytes());
    }
    bound
}

/// Encrypts: the name of the key, a nonce, and the value.
pub(super) fn encrypt(key: &SubjectKey, value: &[u8], bound: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| KeyError::Random {
        reason: error.to_string(),
    })?;
    let cipher = XChaCha20Poly1305::new(&Key::from(key.secret));
    let payload = Payload {
        msg: value,
        aad: bound,
    };
    let encrypted = cipher.encrypt(&XNonce::from(nonce), payload);
    let encrypted = encrypted.map_err(|_| KeyError::Unavailable {
        reason: "a value is too large to be sealed".to_owned(),
    })?;
    Ok([&key.id[..], &nonce, &encrypted].concat())
}

/// Decrypts; `None` if the bytes or what is bound to them differ from what was encrypted.
pub(super) fn decrypt(key: &SubjectKey, bytes: &[u8], bound: &[u8]) -> Option<Vec<u8>> {
    let (id, rest) = bytes.split_first_chunk::<16>()?;
    let (nonce, encrypted) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let cipher = XChaCha20Poly1305::new(&Key::from(key.secret));
    let payload = Payload {
        msg: encrypted,
        aad: bound,
    };
    let opened = cipher.decrypt(&XNonce::from(*nonce), payload).ok()?;
    (*id == key.id).then_some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [PersonalField; 1] = [PersonalField {
        event_type: "Booked",
        field: "name",
        subject: "guest",
        id_field: "guest",
    }];

    fn key() -> SubjectKey {
        SubjectKey::random().unwrap()
    }

    fn text(fields: &Fields<'_>) -> String {
        String::from_utf8(fields.to_json().unwrap()).unwrap()
    }

    /// Marks and seals an event's JSON.
    fn sealed(json: &str, key: &SubjectKey) -> String {
        let mut fields = serde_json::from_str::<Fields<'_>>(json).unwrap();
        fields.mark(&FIELDS).unwrap();
        let marked = fields.to_json().unwrap();
        let mut fields = Fields::to_seal(&marked).unwrap();
        fields.seal("Booked", |_, _| Some(key.clone())).unwrap();
        text(&fields)
    }

    #[test]
    fn whatever_stands_around_a_sealed_value_keeps_its_bytes() {
        let key = key();
        for (id, value, rest) in [
            (r#""g1""#, r#""Ann""#, r#""nights":2"#),
            (
                r#""a\"\u0000b""#,
                r#"{"first":"A \"n\" n","age":[1,2.50]}"#,
                r#""a\nb": [ 1 , {"$sealed":1} ]"#,
            ),
            (
                "17",
                r#""{\"$personal\":1}""#,
                r#""note":"{\"$sealed\":\"1:a:b:AAAA\"}""#,
            ),
            (
                r#""\u00e9""#,
                "null",
                r#""big":123456789012345678901234567890"#,
            ),
        ] {
            let json = format!(r#"{{"guest":{id},"name":{{"$personal":{value}}},{rest}}}"#);
            let sealed = sealed(&json, &key);
            assert!(
                !sealed.contains("$personal\":\"A") && sealed.contains("$sealed"),
                "{sealed}"
            );
            assert!(
                key_ids(sealed.as_bytes()).any(|id| id == key.id),
                "{sealed}"
            );
            let mut fields = Fields::sealed(sealed.as_bytes()).unwrap();
            fields
                .open("Booked", |id| (*id == key.id).then_some(&key))
                .unwrap();
            let opened = text(&fields);
            let compact = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(compact(&opened), compact(&json));
            let (_, behind) = rest.split_once(':').unwrap();
            assert!(
                opened.ends_with(&format!("{}}}", behind.trim())),
                "{opened}"
            );
        }
    }

    #[test]
    fn a_sealed_value_that_another_program_wrote_with_spaces_opens_too() {
        let key = key();
        let sealed = sealed(r#"{"guest":"g1","name":{"$personal":"Ann"}}"#, &key);
        let spaced = sealed.replace("\"$sealed\":", "\"$sealed\" : ");
        assert_eq!(key_ids(spaced.as_bytes()).collect::<Vec<_>>(), [key.id]);
        let mut fields = Fields::sealed(spaced.as_bytes()).unwrap();
        fields.open("Booked", |_| Some(&key)).unwrap();
        assert_eq!(
            text(&fields),
            r#"{"guest":"g1","name":{"$personal":"Ann"}}"#
        );
    }

    #[test]
    fn text_that_only_looks_sealed_is_left_and_never_panics() {
        for json in [
            r#"{"$sealed":"1:guest:guest:AAAA"}"#,
            r#"{"guest":"g1","name":{"$sealed":""}}"#,
            r#"{"guest":"g1","name":{"$sealed":"1:guest"}}"#,
            r#"{"guest":"g1","name":{"$sealed":"2:guest:guest:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}"#,
            r#"{"guest":"g1","name":{"$sealed":7}}"#,
            r#"{"name":{"$sealed":"1:guest:guest:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}"#,
        ] {
            assert!(key_ids(json.as_bytes()).count() <= 1, "{json}");
            let mut fields = Fields::sealed(json.as_bytes()).unwrap();
            fields.open("Booked", |_| None).unwrap();
            assert_eq!(text(&fields), json);
        }
        for bytes in [
            &b"\xff$sealed"[..],
            b"$sealed",
            b"\"$sealed\":\"\xc3",
            b"\"$sealed\":\"1:a:b:\xc3\xa9\"",
        ] {
            assert_eq!(key_ids(bytes).count(), 0);
            assert!(Fields::sealed(bytes).is_none());
        }
        let short = r#"{"guest":"g1","name":{"$sealed":"1:guest:guest:AAAA"}}"#;
        let mut fields = Fields::sealed(short.as_bytes()).unwrap();
        assert!(fields.open("Booked", |_| None).is_err(), "it names no key");
    }
}
