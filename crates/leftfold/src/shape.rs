//! ShapeWriter: the names and types of the fields of a stored value, as text.
//!
//! **Owns:** the trait [`Shape`] and the text it makes. **Does not know:** what shapes are compared with.
//! **Invariants:** serde's derived code encodes two types of one shape alike; a recursive type is named once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    marker::PhantomData,
    rc::Rc,
    sync::Arc,
};

use crate::Personal;

/// A type whose stored form is known. Derive it for types that stand within events or states.
///
/// A type that cannot derive it, because it comes from elsewhere, is marked `#[snapshot(opaque)]` where it stands in a
/// state: it is then known by its name only.
///
/// ```
/// use leftfold::Shape;
/// #[derive(Shape)]
/// struct Money { cents: i64, currency: String }
/// assert_eq!(leftfold::shape_of::<Vec<Money>>(), "[Money{cents:i64,currency:String}]");
/// ```
#[diagnostic::on_unimplemented(
    message = "changes of `{Self}` would go unnoticed in a snapshot",
    note = "write `#[derive(leftfold::Shape)]` above `{Self}`, or `#[snapshot(opaque)]` above the field to know it by \
            its name only"
)]
pub trait Shape {
    /// Describes the type.
    fn describe(shapes: &mut ShapeWriter);
}

/// Returns the shape of a type.
#[must_use]
pub fn shape_of<T: Shape + ?Sized>() -> String {
    let mut shapes = ShapeWriter::new();
    T::describe(&mut shapes);
    shapes.into_text()
}

/// The text that describes a type, as it grows. Written by derived code.
#[derive(Debug, Default)]
pub struct ShapeWriter {
    text: String,
    /// Types that are being described.
    within: Vec<&'static str>,
    /// What each open part ends with, and whether it is a type.
    open: Vec<(&'static str, bool)>,
}

impl ShapeWriter {
    /// Creates an empty description.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a type; `false`: it stands within itself, and was named.
    pub fn begin(&mut self, type_name: &'static str, name: &str) -> bool {
        self.text.push_str(name);
        if self.within.contains(&type_name) {
            return false;
        }
        self.within.push(type_name);
        self.text.push('{');
        self.open.push(("}", true));
        true
    }

    /// Begins a field or a variant.
    pub fn open(&mut self, label: &str) {
        self.separate();
        self.text.push_str(label);
        self.text.push(':');
        self.open.push(("", false));
    }

    /// Ends what was begun last.
    pub fn end(&mut self) {
        if let Some((end, is_type)) = self.open.pop() {
            self.text.push_str(end);
            if is_type {
                self.within.pop();
            }
        }
    }

    /// Adds a note that holds for all following fields.
    pub fn note(&mut self, text: &str) {
        self.separate();
        self.text.push_str(text.trim_end());
        self.text.push(':');
    }

    /// Adds a field whose type is described by its name.
    pub fn field(&mut self, label: &str, type_text: &str) {
        self.open(label);
        self.text.push_str(type_text);
        self.end();
    }

    fn separate(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with(['{', ':', '(', '[']) {
            self.text.push(',');
        }
    }

    /// Something around another type.
    fn around<T: Shape + ?Sized>(&mut self, before: &str, after: &str) {
        self.text.push_str(before);
        T::describe(self);
        self.text.push_str(after);
    }

    /// Returns the text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }
}

/// Asks a type for its shape, and if it has none takes its name: derived code calls `describe` on a reference, and the
/// compiler prefers the method that needs no second reference.
#[derive(Debug)]
pub struct Probe<T: ?Sized>(&'static str, PhantomData<fn() -> Box<T>>);

impl<T: ?Sized> Probe<T> {
    /// Creates the description of the type written like this.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        Self(text, PhantomData)
    }
}

/// See [`Probe`].
pub trait DescribeByShape {
    /// Describes the type by its shape.
    fn describe(&self, shapes: &mut ShapeWriter);
}
impl<T: Shape + ?Sized> DescribeByShape for Probe<T> {
    fn describe(&self, shapes: &mut ShapeWriter) {
        T::describe(shapes);
    }
}

/// See [`Probe`].
pub trait DescribeByName {
    /// Describes the type by its name.
    fn describe(&self, shapes: &mut ShapeWriter);
}
impl<T: ?Sized> DescribeByName for &Probe<T> {
    fn describe(&self, shapes: &mut ShapeWriter) {
        shapes.text.push_str(self.0);
    }
}

macro_rules! named {
    ($($kind:ty),* $(,)?) => {
        $(impl Shape for $kind {
            fn describe(shapes: &mut ShapeWriter) {
                shapes.text.push_str(stringify!($kind));
            }
        })*
    };
}
named! {
    (), bool, char, i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, isize, usize, f32, f64, str, String,
    std::time::Duration, serde_json::Value,
}

macro_rules! wrapped {
    ($($kind:ident $before:literal $after:literal),* $(,)?) => {
        $(impl<T: Shape> Shape for $kind<T> {
            fn describe(shapes: &mut ShapeWriter) {
                shapes.around::<T>($before, $after);
            }
        })*
    };
}
wrapped! { Personal "Personal<" ">", Option "Option<" ">", Vec "[" "]", VecDeque "[" "]", BTreeSet "set<" ">" }

/// Serde writes what is behind a pointer.
macro_rules! transparent {
    ($($kind:ident),*) => {
        $(impl<T: Shape + ?Sized> Shape for $kind<T> {
            fn describe(shapes: &mut ShapeWriter) {
                T::describe(shapes);
            }
        })*
    };
}
transparent! { Box, Rc, Arc }

impl<T: Shape> Shape for [T] {
    fn describe(shapes: &mut ShapeWriter) {
        shapes.around::<T>("[", "]");
    }
}
impl<T: Shape, const N: usize> Shape for [T; N] {
    fn describe(shapes: &mut ShapeWriter) {
        shapes.around::<T>("[", &format!(";{N}]"));
    }
}
impl<T: Shape, S> Shape for HashSet<T, S> {
    fn describe(shapes: &mut ShapeWriter) {
        shapes.around::<T>("set<", ">");
    }
}
impl<K: Shape, V: Shape> Shape for BTreeMap<K, V> {
    fn describe(shapes: &mut ShapeWriter) {
        shapes.around::<K>("map<", "=>");
        shapes.around::<V>("", ">");
    }
}
impl<K: Shape, V: Shape, S> Shape for HashMap<K, V, S> {
    fn describe(shapes: &mut ShapeWriter) {
        <BTreeMap<K, V>>::describe(shapes);
    }
}

macro_rules! tuples {
    ($(($($part:ident),+)),* $(,)?) => {
        $(impl<$($part: Shape),+> Shape for ($($part,)+) {
            fn describe(shapes: &mut ShapeWriter) {
                shapes.text.push('(');
                $(shapes.around::<$part>("", ";");)+
                shapes.text.push(')');
            }
        })*
    };
}
tuples! { (A), (A, B), (A, B, C), (A, B, C, D) }
