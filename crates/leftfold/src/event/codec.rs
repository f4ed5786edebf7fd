//! From an enum of events to JSON of one variant's fields, and back.
//!
//! **Owns:** the translation between serde's picture of an enum and ours. **Does not know:** which enum.
//! **Invariants:** the data of an event holds its fields and no tag, for the type stands beside it; serde's attributes on
//! fields are honoured, because serde's own derived code does the work.
//!
//! Serde writes a variant as `{"Tag":fields}` (or `"Tag"` without fields); encoding cuts the fields out. Decoding
//! tells serde's derived code the variant by its number, and lets it read the fields.

use serde::{
    Deserialize, Serialize,
    de::{self, DeserializeSeed, IntoDeserializer, Visitor, value::U32Deserializer},
    forward_to_deserialize_any,
};

use crate::event::{DecodeError, EncodeError};

/// JSON of the fields of the variant that `event` is.
///
/// # Errors
/// [`EncodeError`] if a field cannot be JSON or the enum is not serialised as serde does by default.
pub fn encode<E: Serialize>(event: &E) -> Result<Vec<u8>, EncodeError> {
    let tagged = serde_json::to_vec(event)?;
    match tagged.as_slice() {
        [b'"', ..] => Ok(b"{}".to_vec()),
        [b'{', inner @ .., b'}'] => {
            match end_of_key(inner).and_then(|colon| inner.get(colon + 1..)) {
                Some(fields) => Ok(fields.to_vec()),
                None => Err(not_tagged().into()),
            }
        }
        _ => Err(not_tagged().into()),
    }
}

fn not_tagged() -> serde_json::Error {
    de::Error::custom(
        "an enum of events must not carry #[serde(tag)], #[serde(untagged)] or a serializer of its own",
    )
}

/// The offset of the colon behind the text that `json` begins with.
fn end_of_key(json: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    (json.get(end + 2) == Some(&b':')).then_some(end + 2)
}

/// The event that was stored as `event_type`, one of `types`, with these fields.
///
/// # Errors
/// [`DecodeError`].
pub fn decode<'de, E: Deserialize<'de>>(
    types: &'static [&'static str],
    event_type: &str,
    data: &'de [u8],
) -> Result<E, DecodeError> {
    let index = types.iter().position(|&known| known == event_type);
    let Some(index) = index.and_then(|index| u32::try_from(index).ok()) else {
        return Err(DecodeError::UnknownType { known: types });
    };
    E::deserialize(Fields { index, data }).map_err(DecodeError::Data)
}

/// An enum whose variant is known by number and whose fields are JSON.
struct Fields<'de> {
    index: u32,
    data: &'de [u8],
}

impl<'de> de::Deserializer<'de> for Fields<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(not_tagged())
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> de::EnumAccess<'de> for Fields<'de> {
    type Error = serde_json::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), Self::Error> {
        let index: U32Deserializer<Self::Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> Fields<'de> {
    /// Reads the data, all of it.
    fn read<T>(
        self,
        read: impl FnOnce(
            &mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>,
        ) -> Result<T, serde_json::Error>,
    ) -> Result<T, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(self.data);
        let value = read(&mut json)?;
        json.end()?;
        Ok(value)
    }
}

impl<'de> de::VariantAccess<'de> for Fields<'de> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        self.read(|json| de::IgnoredAny::deserialize(json).map(drop))
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, Self::Error> {
        self.read(|json| seed.deserialize(json))
    }
    fn tuple_variant<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.read(|json| de::Deserializer::deserialize_tuple(json, len, visitor))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.read(|json| de::Deserializer::deserialize_struct(json, "", fields, visitor))
    }
}
