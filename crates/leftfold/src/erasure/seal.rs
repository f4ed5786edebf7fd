//! Sealing and opening the personal fields of an event's JSON.
//!
//! **Owns:** the text of a sealed value, what is bound to it, and finding the fields. **Does not know:** stores, where
//! keys are, how values are encrypted.
//! **Invariants:** the event's type, the field, and the subject are authenticated with the value, so it opens nowhere else; all
//! other fields keep their bytes.

use std::{borrow::Cow, fmt, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use memchr::memmem::Finder;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use leftfold_store::keys::{KeyError, KeyId};
use zeroize::Zeroizing;

use super::{
    cipher::{Form, SubjectCipher},
    personal::{FORGOTTEN, PLAIN, SEALED},
};

/// The key under which a value stands on its way to being sealed, with kind and id of its subject.
const TO_SEAL: &str = "$seal";

static FINDER_OF_SEALED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(SEALED));
static FINDER_OF_TO_SEAL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(TO_SEAL));

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

impl<'a> Fields<'a> {
    /// Reads the fields of an event if one of them may be marked by what `finder` finds.
    fn of(data: &'a [u8], finder: &Finder<'_>) -> Option<Self> {
        finder.find(data)?;
        serde_json::from_slice(data).ok()
    }

    /// Reads the fields of an event if one of them may be marked for being sealed.
    pub(super) fn to_seal(data: &'a [u8]) -> Option<Self> {
        Self::of(data, &FINDER_OF_TO_SEAL)
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let bytes = self
            .0
            .iter()
            .map(|(name, value)| name.0.len() + value.len() + 4);
        let mut json = Vec::with_capacity(bytes.sum::<usize>() + 2);
        let mut before = b'{';
        for (name, value) in &self.0 {
            write_name(&mut json, before, &name.0)?;
            json.extend_from_slice(value.as_bytes());
            before = b',';
        }
        end_object(&mut json, before);
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
    pub(super) fn seal<'k>(
        &mut self,
        event_type: &str,
        cipher_of: impl Fn(&str, &str) -> Option<&'k SubjectCipher>,
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
            let cipher = cipher_of(subject, &id).ok_or_else(unsealed)?;
            let version = Form::NEWEST.version();
            let mut bound = Vec::new();
            bind(&mut bound, [version, event_type, &name.0, subject, &id]);
            let bytes = cipher.encrypt(plain.get().as_bytes(), &bound)?;
            let text = format!(
                "{version}:{subject}:{id_field}:{}",
                STANDARD_NO_PAD.encode(bytes)
            );
            let sealed = serde_json::Value::String(text);
            *value = Cow::Owned(format!("{{\"{SEALED}\":{sealed}}}"));
        }
        Ok(())
    }
}

/// Writes the name of an entry, behind what begins the object or ends the entry before.
fn write_name(json: &mut Vec<u8>, before: u8, name: &str) -> Result<(), serde_json::Error> {
    json.push(before);
    serde_json::to_writer(&mut *json, name)?;
    json.push(b':');
    Ok(())
}

fn end_object(json: &mut Vec<u8>, before: u8) {
    json.extend_from_slice(if before == b'{' { b"{}" } else { b"}" });
}

/// An event with sealed fields.
pub(super) struct SealedFields<'a> {
    fields: Fields<'a>,
    sealed: Vec<SealedField<'a>>,
}

struct SealedField<'a> {
    /// Its place among the fields.
    nth: usize,
    text: Cow<'a, str>,
    /// The subject, as the event names it.
    id: String,
    /// The name of its key; `None` if the text is too short to hold one.
    key: Option<KeyId>,
}

/// Memory that is used for one event after another, and wiped when it is dropped.
#[derive(Default)]
pub(super) struct Scratch {
    json: Zeroizing<Vec<u8>>,
    value: Zeroizing<Vec<u8>>,
    bound: Vec<u8>,
}

impl<'a> SealedFields<'a> {
    /// Reads the fields of an event; `None` if none of them is sealed.
    pub(super) fn of(data: &'a [u8]) -> Option<Self> {
        let fields = Fields::of(data, &FINDER_OF_SEALED)?;
        // Subjects are named by fields of the event as it is stored, so all are looked up before any is opened.
        let mut sealed = Vec::new();
        for (nth, (_, value)) in fields.0.iter().enumerate() {
            if let Cow::Borrowed(value) = *value
                && let Some(text) = sealed_text(value)
                && let Some(found) = Sealed::parse(&text)
                && let Some(id) = fields.id(found.id_field)
            {
                let key = Sealed::key_id(found.encoded);
                sealed.push(SealedField { nth, text, id, key });
            }
        }
        (!sealed.is_empty()).then_some(Self { fields, sealed })
    }

    /// Returns the names of the keys that the fields need.
    pub(super) fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.sealed.iter().filter_map(|field| field.key)
    }

    /// Returns the event's JSON with the sealed fields opened, and those without a key noted as forgotten.
    pub(super) fn open<'k, 's>(
        &self,
        event_type: &str,
        cipher_of: impl Fn(&KeyId) -> Option<&'k SubjectCipher>,
        scratch: &'s mut Scratch,
    ) -> Result<&'s [u8], NotAuthentic> {
        scratch.json.clear();
        let mut before = b'{';
        let mut sealed = self.sealed.iter().peekable();
        for (nth, (name, value)) in self.fields.0.iter().enumerate() {
            let not_authentic = || NotAuthentic {
                field: name.0.clone().into_owned(),
            };
            // A text is always written.
            write_name(&mut scratch.json, before, &name.0).map_err(|_| not_authentic())?;
            before = b',';
            match sealed.next_if(|field| field.nth == nth) {
                None => scratch.json.extend_from_slice(value.as_bytes()),
                Some(field) => {
                    let key = field.key.ok_or_else(not_authentic)?;
                    let opened = match cipher_of(&key) {
                        Some(cipher) => field.open([event_type, &name.0], cipher, scratch),
                        None => {
                            write_forgotten(&mut scratch.json);
                            Some(())
                        }
                    };
                    opened.ok_or_else(not_authentic)?;
                }
            }
        }
        end_object(&mut scratch.json, before);
        Ok(&scratch.json)
    }
}

fn write_forgotten(json: &mut Vec<u8>) {
    for part in ["{\"", FORGOTTEN, "\":true}"] {
        json.extend_from_slice(part.as_bytes());
    }
}

impl SealedField<'_> {
    /// Writes the value behind the JSON; `None` if it is not authentic.
    fn open(
        &self,
        [event_type, field]: [&str; 2],
        cipher: &SubjectCipher,
        scratch: &mut Scratch,
    ) -> Option<()> {
        let Sealed {
            form,
            subject,
            encoded,
            ..
        } = Sealed::parse(&self.text)?;
        let Scratch { json, value, bound } = scratch;
        bind(
            bound,
            [form.version(), event_type, field, subject, &self.id],
        );
        value.clear();
        STANDARD_NO_PAD.decode_vec(encoded, value).ok()?;
        let plain = cipher.decrypt(form, value, bound)?;
        let plain = std::str::from_utf8(plain).ok()?;
        for part in ["{\"", PLAIN, "\":", plain, "}"] {
            json.extend_from_slice(part.as_bytes());
        }
        Some(())
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
    form: Form,
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
        Some(Self {
            form: Form::of_version(version)?,
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

/// Writes what is authenticated with a value, each part with its length.
fn bind(bound: &mut Vec<u8>, parts: [&str; 5]) {
    bound.clear();
    for part in parts {
        bound.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bound.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use leftfold_store::keys::SubjectKey;

    use super::*;

    const FIELDS: [PersonalField; 1] = [PersonalField {
        event_type: "Booked",
        field: "name",
        subject: "guest",
        id_field: "guest",
    }];

    fn cipher() -> (KeyId, SubjectCipher) {
        let key = SubjectKey::random().unwrap();
        (key.id, SubjectCipher::new(key))
    }

    fn text(fields: &Fields<'_>) -> String {
        String::from_utf8(fields.to_json().unwrap()).unwrap()
    }

    /// Marks and seals an event's JSON.
    fn sealed(json: &str, cipher: &SubjectCipher) -> String {
        let mut fields = serde_json::from_str::<Fields<'_>>(json).unwrap();
        fields.mark(&FIELDS).unwrap();
        let marked = fields.to_json().unwrap();
        let mut fields = Fields::to_seal(&marked).unwrap();
        fields.seal("Booked", |_, _| Some(cipher)).unwrap();
        text(&fields)
    }

    /// Opens an event's JSON; `None` if no field is sealed.
    fn opened(json: &str, cipher: Option<&SubjectCipher>) -> Option<Result<String, NotAuthentic>> {
        let fields = SealedFields::of(json.as_bytes())?;
        let mut scratch = Scratch::default();
        let opened = fields.open("Booked", |_| cipher, &mut scratch);
        Some(opened.map(|json| String::from_utf8(json.to_vec()).unwrap()))
    }

    fn keys(json: &str) -> Vec<KeyId> {
        let fields = SealedFields::of(json.as_bytes());
        fields.iter().flat_map(|fields| fields.keys()).collect()
    }

    #[test]
    fn whatever_stands_around_a_sealed_value_keeps_its_bytes() {
        let (key, cipher) = cipher();
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
            let sealed = sealed(&json, &cipher);
            assert!(
                !sealed.contains("$personal\":\"A") && sealed.contains("$sealed"),
                "{sealed}"
            );
            assert_eq!(keys(&sealed), [key], "{sealed}");
            let opened = opened(&sealed, Some(&cipher)).unwrap().unwrap();
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
        let (key, cipher) = cipher();
        let json = r#"{"guest":"g1","name":{"$personal":"Ann"}}"#;
        let sealed = sealed(json, &cipher);
        let spaced = sealed.replace("\"$sealed\":", "\"$sealed\" : ");
        assert_eq!(keys(&spaced), [key]);
        assert_eq!(opened(&spaced, Some(&cipher)).unwrap().unwrap(), json);
    }

    /// Values that another implementation of both ciphers encrypted.
    const OF_EACH_FORM: [(&str, &str); 2] = [
        (
            "1",
            "a2V5IG9mIHRoZSBndWVzdGEgbm9uY2Ugb2YgMjQgYnl0ZXMgaGVyZa4Jm6voz7p4NZHudhWY8n1X2REdhx9h5oEYj8rW",
        ),
        (
            "2",
            "a2V5IG9mIHRoZSBndWVzdHR3ZWx2ZSBieXRlczc5r90vjM+pPaWm4CmmW4c/oIe0y0jTlqua7dzG",
        ),
    ];

    #[test]
    fn values_of_both_forms_open_and_stay_bound_to_their_place() {
        let cipher = SubjectCipher::new(SubjectKey {
            id: *b"key of the guest",
            secret: *b"the secret of guest g1, 32 bytes",
        });
        for (version, encoded) in OF_EACH_FORM {
            let sealed = format!("\"{version}:guest:guest:{encoded}\"");
            let json = format!(r#"{{"guest":"g1","name":{{"$sealed":{sealed}}},"nights":2}}"#);
            let name = opened(&json, Some(&cipher)).unwrap().unwrap();
            let expected = r#"{"guest":"g1","name":{"$personal":"Ann Example"},"nights":2}"#;
            assert_eq!(name, expected, "{version}");
            for (text, other) in [
                ("\"g1\"", "\"g2\""),
                ("\"name\"", "\"note\""),
                (":guest:guest:", ":owner:guest:"),
            ] {
                let moved = json.replace(text, other);
                assert!(opened(&moved, Some(&cipher)).unwrap().is_err(), "{moved}");
            }
            let forgotten = opened(&json, None).unwrap().unwrap();
            let expected = r#"{"guest":"g1","name":{"$forgotten":true},"nights":2}"#;
            assert_eq!(forgotten, expected, "{version}");
        }
    }

    #[test]
    fn text_that_only_looks_sealed_is_left_and_never_panics() {
        for json in [
            r#"{"$sealed":"1:guest:guest:AAAA"}"#,
            r#"{"guest":"g1","name":{"$sealed":""}}"#,
            r#"{"guest":"g1","name":{"$sealed":"1:guest"}}"#,
            r#"{"guest":"g1","name":{"$sealed":"3:guest:guest:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}"#,
            r#"{"guest":"g1","name":{"$sealed":7}}"#,
            r#"{"name":{"$sealed":"1:guest:guest:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}"#,
            r#"["$sealed"]"#,
            "$sealed",
        ] {
            assert!(opened(json, None).is_none(), "{json}");
        }
        for bytes in [
            &b"\xff$sealed"[..],
            b"\"$sealed\":\"\xc3",
            b"{\"a\":{\"$sealed\":\"1:a:b:\xc3\"}}",
        ] {
            assert!(SealedFields::of(bytes).is_none());
        }
        let (_, cipher) = cipher();
        for version in ["1", "2"] {
            let short =
                format!(r#"{{"guest":"g1","name":{{"$sealed":"{version}:guest:guest:AAAA"}}}}"#);
            assert!(opened(&short, None).unwrap().is_err(), "it names no key");
            let short = short.replace("AAAA", &"A".repeat(28));
            assert!(
                opened(&short, Some(&cipher)).unwrap().is_err(),
                "it is too short"
            );
        }
    }
}
