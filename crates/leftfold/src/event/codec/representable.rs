//! What formats cannot hold: NaN in JSON, nulls in CBOR, and a presence that holds nothing.
//!
//! **Owns:** [`check`], [`check_nulls`], [`presences`]. **Does not know:** where the value is written.
//! **Invariants:** `NaN` and infinities are found wherever they stand in a value; serde_json would write them as `null`.
//! Every `Some` is counted, however it is hidden behind pointers and newtypes.

use std::{cell::Cell, fmt::Display};

use serde::{Serialize, Serializer, ser};

/// Fails if a value holds a number that JSON cannot.
pub(super) fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), NotRepresentable> {
    let presences = Cell::new(0);
    value.serialize(Check {
        presences: &presences,
        finite: true,
        no_units: false,
    })
}

/// Fails if a value holds a unit, which the null of a JSON value is too: our CBOR writes it as an empty list.
#[cfg(feature = "cbor")]
pub(super) fn check_nulls<T: Serialize + ?Sized>(value: &T) -> Result<(), NotRepresentable> {
    let presences = Cell::new(0);
    value.serialize(Check {
        presences: &presences,
        finite: false,
        no_units: true,
    })
}

/// Returns how many `Some` a value holds. All formats write `Some(nothing)` as nothing, so it comes back as `None`: a value
/// that has fewer of them when it is read again is another value.
pub(crate) fn presences<T: Serialize + ?Sized>(value: &T) -> usize {
    let presences = Cell::new(0);
    let counted = value.serialize(Check {
        presences: &presences,
        finite: false,
        no_units: false,
    });
    // A value that cannot be serialized is refused where it is encoded.
    counted.map_or(0, |()| presences.get())
}

/// Why a value cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotRepresentable(String);

impl ser::Error for NotRepresentable {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A serializer that writes nothing.
#[derive(Clone, Copy)]
struct Check<'a> {
    presences: &'a Cell<usize>,
    /// Whether numbers must be finite.
    finite: bool,
    /// Whether units are refused.
    no_units: bool,
}

fn finite(number: f64) -> Result<(), NotRepresentable> {
    match number.is_finite() {
        true => Ok(()),
        false => Err(NotRepresentable(format!(
            "JSON has no number {number}; use another format, or an Option"
        ))),
    }
}

macro_rules! nothing_to_check {
    ($($method:ident($($kind:ty)?)),* $(,)?) => {
        $(fn $method(self $(, _: $kind)?) -> Result<(), NotRepresentable> {
            Ok(())
        })*
    };
}

impl Serializer for Check<'_> {
    type Ok = ();
    type Error = NotRepresentable;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    nothing_to_check! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_i128(i128), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_u128(u128), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]), serialize_none(),
    }
    fn serialize_unit(self) -> Result<(), NotRepresentable> {
        match self.no_units {
            false => Ok(()),
            true => Err(NotRepresentable(
                "a unit or a null of JSON would come back from CBOR as an empty list; use another format, or None".to_owned(),
            )),
        }
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotRepresentable> {
        self.serialize_unit()
    }
    fn serialize_f32(self, number: f32) -> Result<(), NotRepresentable> {
        self.serialize_f64(f64::from(number))
    }
    fn serialize_f64(self, number: f64) -> Result<(), NotRepresentable> {
        if self.finite { finite(number) } else { Ok(()) }
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), NotRepresentable> {
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotRepresentable> {
        self.presences.set(self.presences.get() + 1);
        value.serialize(self)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotRepresentable> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotRepresentable> {
        value.serialize(self)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self, NotRepresentable> {
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, NotRepresentable> {
        Ok(self)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, NotRepresentable> {
        Ok(self)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotRepresentable> {
        Ok(self)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self, NotRepresentable> {
        Ok(self)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, NotRepresentable> {
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotRepresentable> {
        Ok(self)
    }
    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<(), NotRepresentable> {
        Ok(())
    }
}

macro_rules! elements {
    ($($kind:ident::$method:ident),* $(,)?) => {
        $(impl ser::$kind for Check<'_> {
            type Ok = ();
            type Error = NotRepresentable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotRepresentable> {
                value.serialize(*self)
            }
            fn end(self) -> Result<(), NotRepresentable> {
                Ok(())
            }
        })*
    };
}
elements! {
    SerializeSeq::serialize_element, SerializeTuple::serialize_element, SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! fields {
    ($($kind:ident),*) => {
        $(impl ser::$kind for Check<'_> {
            type Ok = ();
            type Error = NotRepresentable;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), NotRepresentable> {
                value.serialize(*self)
            }
            fn end(self) -> Result<(), NotRepresentable> {
                Ok(())
            }
        })*
    };
}
fields! { SerializeStruct, SerializeStructVariant }

impl ser::SerializeMap for Check<'_> {
    type Ok = ();
    type Error = NotRepresentable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), NotRepresentable> {
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
    ) -> Result<(), NotRepresentable> {
        value.serialize(*self)
    }
    fn end(self) -> Result<(), NotRepresentable> {
        Ok(())
    }
}
