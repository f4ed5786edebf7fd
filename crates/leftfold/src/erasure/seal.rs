//! Sealing and opening the personal fields of an event's JSON.
//!
//! **Owns:** the form of a sealed value, what is bound to it, and finding the fields. **Does not know:** stores, where
//! keys are.
//! **Invariants:** a nonce is random and of 24 bytes, so none repeats under a key; the event's type, the field, and the subject
//! are authenticated with the value, so it opens nowhere else; all other fields keep their bytes.

use std::fmt;

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

use super::{
    keys::{KeyError, KeyId, SubjectKey, fill},
    personal::{FORGOTTEN, PLAIN, SEALED},
};

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

/// The entries of a JSON object in their order, each value as its text.
pub(super) struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
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
    #[serde(rename = "$personal", borrow)]
    plain: Option<&'a RawValue>,
    #[serde(rename = "$seal", borrow)]
    to_seal: Option<(String, String, &'a RawValue)>,
    #[serde(rename = "$sealed")]
    sealed: Option<String>,
}

fn marked<'a>(value: &'a RawValue, key: &str) -> Option<Marked<'a>> {
    let text = value.get();
    let begins = text.strip_prefix("{\"").and_then(|t| t.strip_prefix(key));
    begins?.strip_prefix('"')?;
    serde_json::from_str(text).ok()
}

impl Fields {
    /// Reads the fields of an event if one of them may be marked by `key`.
    fn of(data: &[u8], key: &str) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?;
        text.contains(key)
            .then(|| serde_json::from_str(text).ok())?
    }

    pub(super) fn to_seal(data: &[u8]) -> Option<Self> {
        Self::of(data, TO_SEAL)
    }

    pub(super) fn sealed(data: &[u8]) -> Option<Self> {
        Self::of(data, SEALED)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let entries = self
            .0
            .iter()
            .map(|(name, value)| format!("{}:{value}", serde_json::Value::String(name.clone())));
        let entries: Vec<_> = entries.collect();
        format!("{{{}}}", entries.join(",")).into_bytes()
    }

    /// The text of a field that names a subject: a text or a number.
    fn id(&self, field: &str) -> Option<String> {
        let (_, value) = self.0.iter().find(|(name, _)| name == field)?;
        match serde_json::from_str(value.get()).ok()? {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(_) => Some(value.get().to_owned()),
            _ => None,
        }
    }

    /// Notes beside each personal field of an event type whose it is. `Err`: the field that does not name a subject.
    pub(super) fn mark(&mut self, of: &[PersonalField]) -> Result<(), &'static str> {
        for personal in of {
            let id = self.id(personal.id_field).ok_or(personal.id_field)?;
            for (name, value) in &mut self.0 {
                let plain = marked(value, PLAIN).and_then(|marked| marked.plain);
                if name.as_str() == personal.field
                    && let Some(plain) = plain
                {
                    let kind = serde_json::Value::from(format!(
                        "{}:{}",
                        personal.subject, personal.id_field
                    ));
                    let id = serde_json::Value::from(id.clone());
                    let text = format!("{{\"{TO_SEAL}\":[{kind},{id},{plain}]}}");
                    *value = RawValue::from_string(text).map_err(|_| personal.field)?;
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
                reason: format!("field {name:?} has no key"),
            };
            let (subject, id_field) = kind.split_once(':').ok_or_else(unsealed)?;
            let key = key_of(subject, &id).ok_or_else(unsealed)?;
            let bound = bound(event_type, name, subject, &id);
            let bytes = encrypt(&key, plain.get().as_bytes(), &bound)?;
            let text = format!(
                "{VERSION}:{subject}:{id_field}:{}",
                STANDARD_NO_PAD.encode(bytes)
            );
            let sealed = serde_json::Value::String(text);
            let sealed = RawValue::from_string(format!("{{\"{SEALED}\":{sealed}}}"));
            *value = sealed.map_err(|_| unsealed())?;
        }
        Ok(())
    }

    /// Returns the names of the keys that sealed fields need.
    pub(super) fn key_ids(&self) -> Vec<KeyId> {
        let fields = self.0.iter();
        let texts = fields.filter_map(|(_, value)| marked(value, SEALED)?.sealed);
        texts
            .filter_map(|text| Some(Sealed::parse(&text)?.key()))
            .flatten()
            .collect()
    }

    /// Opens the sealed fields, and notes of those without a key that they were forgotten.
    pub(super) fn open(
        &mut self,
        event_type: &str,
        key_of: impl Fn(&KeyId) -> Option<SubjectKey>,
    ) -> Result<(), NotAuthentic> {
        let ids: Vec<_> = self
            .0
            .iter()
            .map(|(_, value)| {
                let text = marked(value, SEALED)?.sealed?;
                let sealed = Sealed::parse(&text)?;
                let id = self.id(&sealed.id_field)?;
                Some((sealed, id))
            })
            .collect();
        for ((name, value), sealed) in self.0.iter_mut().zip(ids) {
            let Some((sealed, id)) = sealed else { continue };
            let not_authentic = || NotAuthentic {
                field: name.clone(),
            };
            let key_id = sealed.key().ok_or_else(not_authentic)?;
            let text = match key_of(&key_id) {
                None => format!("{{\"{FORGOTTEN}\":true}}"),
                Some(key) => {
                    let bound = bound(event_type, name, &sealed.subject, &id);
                    let plain = decrypt(&key, &sealed.bytes, &bound).ok_or_else(not_authentic)?;
                    let plain = String::from_utf8(plain).map_err(|_| not_authentic())?;
                    format!("{{\"{PLAIN}\":{plain}}}")
                }
            };
            *value = RawValue::from_string(text).map_err(|_| not_authentic())?;
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
struct Sealed {
    subject: String,
    id_field: String,
    /// The name of the key, the nonce, and what was encrypted.
    bytes: Vec<u8>,
}

impl Sealed {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let (version, subject, id_field) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
        (version == VERSION).then(|| Self {
            subject: subject.to_owned(),
            id_field: id_field.to_owned(),
            bytes,
        })
    }

    fn key(&self) -> Option<KeyId> {
        self.bytes.first_chunk().copied()
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
    fill(&mut nonce)?;
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
