//! Serde's attributes: which of them the framework cannot honour, and their text.
//!
//! **Owns:** reading `#[serde(...)]`. **Does not know:** the generated code.
//! **Invariants:** an attribute that would make serde's encoding differ from the stored one is an error at its own place.

use quote::ToTokens;
use syn::{Attribute, Error, Meta, Token, punctuated::Punctuated, spanned::Spanned};

/// What makes an enum anything but variants side by side.
const OF_ENUMS: &[&str] = &[
    "tag",
    "content",
    "untagged",
    "remote",
    "from",
    "try_from",
    "into",
    "transparent",
];
/// What makes a variant unreadable, or the numbers of variants ambiguous.
const OF_VARIANTS: &[&str] = &[
    "skip",
    "skip_serializing",
    "skip_deserializing",
    "other",
    "untagged",
];
/// What makes a field come back as another value.
const OF_STATES: &[&str] = &["skip", "skip_serializing", "skip_deserializing"];

/// What makes a variant come back as another one that has the same form.
const OF_SHAPES: &[&str] = &["untagged"];

/// Refuses attributes of an enum within a state, or of one of its variants.
pub(crate) fn check_state_enum(attributes: &[Attribute]) -> Result<(), Error> {
    let message = "an enum within a state cannot carry this: a variant would come back as the first one of the same form; \
                   use #[serde(tag)], or #[snapshot(opaque)] above the field if each variant has a form of its own";
    refuse(attributes, OF_SHAPES, message)
}

/// Refuses attributes of an enum of events.
pub(crate) fn check_enum(attributes: &[Attribute]) -> Result<(), Error> {
    let message = "an enum of events cannot carry this: the type of an event is stored beside its data, not in it";
    refuse(attributes, OF_ENUMS, message)
}

/// Refuses attributes of a variant of events.
pub(crate) fn check_variant(attributes: &[Attribute]) -> Result<(), Error> {
    let message =
        "a variant of events cannot carry this: each one that is written must be read again";
    refuse(attributes, OF_VARIANTS, message)
}

/// Refuses attributes of a field of a state.
pub(crate) fn check_state_field(attributes: &[Attribute]) -> Result<(), Error> {
    let message =
        "a field of a state with snapshots cannot carry this: it would come back as its default";
    refuse(attributes, OF_STATES, message)
}

fn refuse(attributes: &[Attribute], names: &[&str], message: &str) -> Result<(), Error> {
    for meta in metas(attributes)? {
        if names.iter().any(|name| meta.path().is_ident(name)) {
            return Err(Error::new(meta.span(), message));
        }
    }
    Ok(())
}

/// Returns whether a field is decoded by code of the program's own.
pub(crate) fn has_decoder(attributes: &[Attribute]) -> Result<bool, Error> {
    let is_own = |meta: &Meta| {
        let path = meta.path();
        path.is_ident("with") || path.is_ident("deserialize_with")
    };
    Ok(metas(attributes)?.iter().any(is_own))
}

/// Returns the text of the attributes that change how the fields of all variants are written.
pub(crate) fn text_for_fields(attributes: &[Attribute]) -> Result<String, Error> {
    let mut text = String::new();
    for meta in metas(attributes)? {
        // It renames variants, and their names are not stored.
        if !meta.path().is_ident("rename_all") {
            text += &format!("serde({}) ", without_spaces(&meta));
        }
    }
    Ok(text)
}

/// Returns the text of all attributes.
pub(crate) fn text(attributes: &[Attribute]) -> String {
    let serde = attributes.iter().filter(|a| a.path().is_ident("serde"));
    serde.map(|a| without_spaces(&a.meta) + " ").collect()
}

/// Returns source text without the spaces that compilers put in differently.
pub(crate) fn without_spaces(tokens: &impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

fn metas(attributes: &[Attribute]) -> Result<Vec<Meta>, Error> {
    let mut metas = Vec::new();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("serde")) {
        metas.extend(attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?);
    }
    Ok(metas)
}
