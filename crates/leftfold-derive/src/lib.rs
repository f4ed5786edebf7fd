//! The derive macros of the Leftfold framework; use them through the crate `leftfold`.
//!
//! **Owns:** `#[derive(Event)]`, `#[derive(Shape)]`, `#[derive(Snapshot)]`: reading the type, and messages that say how
//! to mend it.
//! **Does not know:** stores, encodings; the generated code calls into `leftfold` for both.
//! **Invariants:** a wire name is always written out, so that renaming a variant never changes what is stored; every
//! mistake is reported at the place where it was made.

mod attributes;
mod event;
mod personal;
mod serde_attributes;
mod shape;
mod snapshot;
mod transparent;

use syn::{DeriveInput, Error, parse_macro_input};

/// Makes an enum the events of an aggregate. Each variant names its type on the wire: `#[event("DepositMade")]`.
///
/// The enum must also derive serde's `Serialize` and `Deserialize`; the variant's fields become the event's data,
/// and serde's attributes on fields are honoured. An enum whose variants are all `#[event(transparent)]` holds the events of
/// other enums and derives nothing else. See `leftfold::Event`.
#[proc_macro_derive(Event, attributes(event, personal, tag))]
pub fn derive_event(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expanded(event::expand, &parse_macro_input!(input as DeriveInput))
}

/// Describes a type that stands in an event or in a snapshot, so that a change of its fields is noticed. See `leftfold::Shape`.
#[proc_macro_derive(Shape, attributes(snapshot))]
pub fn derive_shape(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expanded(shape::expand, &parse_macro_input!(input as DeriveInput))
}

/// Makes the state of an aggregate one that snapshots can be taken of: `#[snapshot(version = 1, every = 100)]`.
///
/// The type must also derive serde's `Serialize` and `Deserialize`. See `leftfold::Snapshot`.
#[proc_macro_derive(Snapshot, attributes(snapshot))]
pub fn derive_snapshot(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expanded(snapshot::expand, &parse_macro_input!(input as DeriveInput))
}

fn expanded(
    expand: impl FnOnce(&DeriveInput) -> Result<proc_macro2::TokenStream, Error>,
    input: &DeriveInput,
) -> proc_macro::TokenStream {
    expand(input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}
