//! Decoding the fields of one variant.
//!
//! **Owns:** [`VariantSeed`] and the libraries that read each format. **Does not know:** names of types; a variant is a number.
//! **Invariants:** all of the data is read: trailing bytes are an error.

use std::marker::PhantomData;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IntoDeserializer, Visitor, value::U32Deserializer},
    forward_to_deserialize_any,
};

/// Reads an enum whose variant is known by number, from its fields.
pub(super) struct VariantSeed<E> {
    variant: u32,
    of: PhantomData<E>,
}

impl<E> VariantSeed<E> {
    pub(super) fn new(variant: usize) -> Self {
        Self {
            variant: u32::try_from(variant).unwrap_or(u32::MAX),
            of: PhantomData,
        }
    }
}

impl<'de, E: Deserialize<'de>> DeserializeSeed<'de> for VariantSeed<E> {
    type Value = E;

    fn deserialize<D: Deserializer<'de>>(self, fields: D) -> Result<E, D::Error> {
        let variant = self.variant;
        E::deserialize(Fields { variant, fields })
    }
}

pub(super) fn json<'de, S: DeserializeSeed<'de>>(
    seed: S,
    data: &'de [u8],
) -> Result<S::Value, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(data);
    let value = seed.deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

#[cfg(feature = "messagepack")]
pub(super) fn message_pack<'de, S: DeserializeSeed<'de>>(
    seed: S,
    data: &'de [u8],
) -> Result<S::Value, crate::error::Cause> {
    let mut reader = rmp_serde::Deserializer::new(data);
    let value = seed.deserialize(&mut reader)?;
    match reader.into_inner() {
        [] => Ok(value),
        more => Err(format!("{} bytes follow the data", more.len()).into()),
    }
}

#[cfg(feature = "cbor")]
pub(super) fn cbor<'de, S: DeserializeSeed<'de>>(
    seed: S,
    data: &'de [u8],
) -> Result<S::Value, crate::error::Cause> {
    use cbor4ii::core::{dec::Read, utils::SliceReader};
    let mut reader = cbor4ii::serde::Deserializer::new(SliceReader::new(data));
    let value = seed.deserialize(&mut reader)?;
    let mut reader = reader.into_inner();
    match reader.fill(1)?.as_ref().len() {
        0 => Ok(value),
        _ => Err("bytes follow the data".into()),
    }
}

/// An enum whose variant is known by number and whose fields come from `fields`.
struct Fields<D> {
    variant: u32,
    fields: D,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Fields<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(de::Error::custom(super::NOT_TAGGED))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_enum(self)
    }

    fn is_human_readable(&self) -> bool {
        self.fields.is_human_readable()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> de::EnumAccess<'de> for Fields<D> {
    type Error = D::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), D::Error> {
        let variant: U32Deserializer<D::Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de, D: Deserializer<'de>> de::VariantAccess<'de> for Fields<D> {
    type Error = D::Error;

    fn unit_variant(self) -> Result<(), D::Error> {
        de::IgnoredAny::deserialize(self.fields).map(drop)
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, D::Error> {
        seed.deserialize(self.fields)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.fields.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.fields.deserialize_struct("", fields, visitor)
    }
}
