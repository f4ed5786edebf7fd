//! Encoding an enum of events as the data of one variant's fields, and decoding it.
//!
//! **Owns:** the translation between serde's representation of an enum and ours, and the formats. **Does not know:** which enum.
//! **Invariants:** the data of an event holds its fields and no tag, because the type is stored beside it; serde's attributes on
//! fields are honoured, because serde's own derived code does the work.
//!
//! Serde's derived code gets a serializer that accepts variants only and passes their fields on to the real one. For decoding it
//! gets a deserializer that names the variant by its number and lets the real one read the fields.

use leftfold_model::ContentType;
use serde::{
    Deserialize, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed},
    ser,
};

use crate::{DecodeError, error::Cause};

#[cfg(any(feature = "cbor", feature = "messagepack"))]
mod json_value;
mod read;
mod representable;
#[cfg(any(feature = "cbor", feature = "messagepack"))]
use json_value::JsonValue;
use read::VariantSeed;
pub(crate) use representable::presences;

/// How the data of events is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// MessagePack with names of fields.
    #[cfg(feature = "messagepack")]
    MessagePack,
    /// CBOR.
    #[cfg(feature = "cbor")]
    Cbor,
}

/// The data of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// How it is encoded.
    pub content_type: ContentType,
    /// The bytes.
    pub data: Vec<u8>,
}

/// The data that an event is decoded from: stored bytes, or the result of an upcaster.
#[derive(Debug)]
pub enum Data<'a> {
    /// Stored bytes.
    Stored(ContentType, &'a [u8]),
    /// The result of an upcaster.
    Upcast(serde_json::Value),
}

/// Encodes the fields of the variant of `event`.
///
/// # Errors
/// If a field cannot be encoded or the enum is not serialised as serde does by default.
pub(crate) fn encode<E: Serialize>(format: Format, event: &E) -> Result<Encoded, Cause> {
    let fields = Fields(event);
    let (content_type, data) = match format {
        Format::Json => (ContentType::Json, encode_json(&fields)?),
        #[cfg(feature = "messagepack")]
        Format::MessagePack => (ContentType::MessagePack, rmp_serde::to_vec_named(&fields)?),
        #[cfg(feature = "cbor")]
        Format::Cbor => {
            representable::check_nulls(event)?;
            let data = cbor4ii::serde::to_vec(Vec::new(), &fields)?;
            (ContentType::Cbor, data)
        }
    };
    Ok(Encoded { content_type, data })
}

/// Encodes a value as JSON.
///
/// # Errors
/// If it cannot be encoded, or holds a number that would come back as nothing.
pub(crate) fn encode_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Cause> {
    representable::check(value)?;
    Ok(serde_json::to_vec(value)?)
}

/// Encodes a state as JSON, and makes sure that it would come back as it is.
///
/// # Errors
/// As [`encode_json`], or if it cannot be decoded, or what is decoded is encoded as something else.
pub(crate) fn encode_state<T: Serialize + DeserializeOwned>(state: &T) -> Result<Vec<u8>, Cause> {
    let data = encode_json(state)?;
    let restored: T = serde_json::from_slice(&data)?;
    if presences(&restored) != presences(state) {
        return Err(ABSENT.into());
    }
    let again = serde_json::to_vec(&restored)?;
    if !is_same(ContentType::Json, &data, &again) {
        return Err(CHANGED.into());
    }
    Ok(data)
}

/// Returns whether two encodings are those of one value. Sets and maps that hash are written in any order.
///
/// Encodings that differ and hold what no JSON value is, such as `NaN`, are taken for the same.
pub(crate) fn is_same(content_type: ContentType, one: &[u8], other: &[u8]) -> bool {
    let unordered = |data| value(content_type, data).map(unordered);
    match one == other {
        true => true,
        false => match (unordered(one), unordered(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => true,
        },
    }
}

/// Returns a value with the elements of every list in one order.
fn unordered(mut value: serde_json::Value) -> serde_json::Value {
    fn sort(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(elements) => {
                elements.iter_mut().for_each(sort);
                elements.sort_by_cached_key(ToString::to_string);
            }
            serde_json::Value::Object(fields) => fields.values_mut().for_each(sort),
            _ => {}
        }
    }
    sort(&mut value);
    value
}

/// Why a value is refused that is encoded differently after it was decoded.
pub(crate) const CHANGED: &str =
    "a field would come back as another value, such as a default that it does not have";

/// Why a value is refused that would come back as another.
pub(crate) const ABSENT: &str = "an Option would come back as another one: Some as None, because what it holds can be \
    nothing, or None as Some, because its default is that";

/// Decodes the event whose variant has this index among those serde reads.
///
/// # Errors
/// As [`DecodeError`] says.
pub(crate) fn decode<'de, E: Deserialize<'de>>(
    variant: usize,
    data: Data<'de>,
) -> Result<E, DecodeError> {
    let seed = VariantSeed::new(variant);
    match data {
        Data::Upcast(value) => seed.deserialize(value).map_err(data_error),
        Data::Stored(ContentType::Json, bytes) => read::json(seed, bytes).map_err(data_error),
        #[cfg(feature = "messagepack")]
        Data::Stored(ContentType::MessagePack, bytes) => {
            read::message_pack(seed, bytes).map_err(DecodeError::Data)
        }
        #[cfg(feature = "cbor")]
        Data::Stored(ContentType::Cbor, bytes) => {
            read::cbor(seed, bytes).map_err(DecodeError::Data)
        }
        Data::Stored(other, _) => Err(DecodeError::ContentType(other)),
    }
}

/// Decodes stored data as a JSON value, for upcasters.
///
/// # Errors
/// As [`DecodeError`] says.
pub(crate) fn value(
    content_type: ContentType,
    data: &[u8],
) -> Result<serde_json::Value, DecodeError> {
    match content_type {
        ContentType::Json => serde_json::from_slice(data).map_err(data_error),
        #[cfg(feature = "messagepack")]
        ContentType::MessagePack => rmp_serde::from_slice(data)
            .map(|JsonValue(value)| value)
            .map_err(data_error),
        #[cfg(feature = "cbor")]
        ContentType::Cbor => cbor4ii::serde::from_slice(data)
            .map(|JsonValue(value)| value)
            .map_err(data_error),
        other => Err(DecodeError::ContentType(other)),
    }
}

fn data_error(error: impl Into<Cause>) -> DecodeError {
    DecodeError::Data(error.into())
}

const NOT_TAGGED: &str =
    "an enum of events must not carry #[serde(tag)], #[serde(untagged)] or a serializer of its own";

/// An enum of which only the variant's fields are written.
pub(crate) struct Fields<'a, E>(pub(crate) &'a E);

impl<E: Serialize> Serialize for Fields<'_, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Variant(serializer))
    }
}

/// A serializer that accepts a variant and passes its fields to the inner one.
struct Variant<S>(S);

/// Serde's methods for whatever is not a variant.
macro_rules! refuse {
    ($($method:ident($($kind:ty)?)),* $(,)?) => {
        $(fn $method(self $(, _: $kind)?) -> Result<S::Ok, S::Error> {
            Err(ser::Error::custom(NOT_TAGGED))
        })*
    };
}

impl<S: Serializer> Serializer for Variant<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = ser::Impossible<S::Ok, S::Error>;
    type SerializeTuple = ser::Impossible<S::Ok, S::Error>;
    type SerializeTupleStruct = ser::Impossible<S::Ok, S::Error>;
    type SerializeMap = ser::Impossible<S::Ok, S::Error>;
    type SerializeStruct = ser::Impossible<S::Ok, S::Error>;
    type SerializeTupleVariant = TupleFields<S::SerializeTuple>;
    type SerializeStructVariant = NamedFields<S::SerializeStruct>;

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<S::Ok, S::Error> {
        ser::SerializeMap::end(self.0.serialize_map(Some(0))?)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(self.0)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple(len).map(TupleFields)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct(variant, len).map(NamedFields)
    }

    refuse! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_f32(f32),
        serialize_f64(f64), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]), serialize_none(),
        serialize_unit(), serialize_unit_struct(&'static str),
    }
    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom(NOT_TAGGED))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom(NOT_TAGGED))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Err(ser::Error::custom(NOT_TAGGED))
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, S::Error> {
        Err(ser::Error::custom(NOT_TAGGED))
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Err(ser::Error::custom(NOT_TAGGED))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        Err(ser::Error::custom(NOT_TAGGED))
    }
    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        Err(ser::Error::custom(NOT_TAGGED))
    }
    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// The fields of a tuple variant, as a tuple.
struct TupleFields<T>(T);

impl<T: ser::SerializeTuple> ser::SerializeTupleVariant for TupleFields<T> {
    type Ok = T::Ok;
    type Error = T::Error;

    fn serialize_field<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), T::Error> {
        self.0.serialize_element(value)
    }
    fn end(self) -> Result<T::Ok, T::Error> {
        self.0.end()
    }
}

/// The fields of a variant with names, as a struct.
struct NamedFields<T>(T);

impl<T: ser::SerializeStruct> ser::SerializeStructVariant for NamedFields<T> {
    type Ok = T::Ok;
    type Error = T::Error;

    fn serialize_field<V: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &V,
    ) -> Result<(), T::Error> {
        self.0.serialize_field(key, value)
    }
    fn skip_field(&mut self, key: &'static str) -> Result<(), T::Error> {
        self.0.skip_field(key)
    }
    fn end(self) -> Result<T::Ok, T::Error> {
        self.0.end()
    }
}
