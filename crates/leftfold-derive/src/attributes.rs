//! Parsing the attributes of the macros.
//!
//! **Owns:** the grammar of `#[event(...)]`, `#[tag(...)]` and `#[snapshot(...)]`. **Does not know:** the generated code.
//! **Invariants:** an unknown attribute is an error that lists the known ones.

use syn::{
    Attribute, Error, Ident, LitInt, LitStr, Path, Token, Variant,
    parse::{Parse, ParseStream},
    spanned::Spanned,
};

/// Bytes of an event type, at most: `leftfold_model::limits::EVENT_TYPE_BYTES_MAX`.
const EVENT_TYPE_BYTES_MAX: usize = 255;

const UNKNOWN: &str = "unknown events can be an \"error\", or be left out by \"skip\"; to keep them add a variant with \
                       #[event(other)]";
const ENUM: &str =
    "above an enum of events stand upcast = function, unknown = \"skip\" and format = \"cbor\"";

/// What `#[event(...)]` says above a variant.
pub(crate) enum VariantAttributes {
    /// Its type on the wire and the version of its shape.
    Kind(LitStr, u32),
    /// It takes what no other variant names.
    Other,
    /// It holds the events of another enum.
    Transparent,
}

impl VariantAttributes {
    /// Reads what stands above a variant.
    pub(crate) fn of(variant: &Variant) -> Result<Self, Error> {
        match only(&variant.attrs, "event", "a variant has one wire name")? {
            Some(attribute) => attribute.parse_args(),
            None => {
                let message = format!(
                    "variant `{0}` has no wire name; write #[event(\"{0}\")] above it and never change the name again",
                    variant.ident
                );
                Err(Error::new(variant.ident.span(), message))
            }
        }
    }
}

impl Parse for VariantAttributes {
    fn parse(input: ParseStream<'_>) -> Result<Self, Error> {
        if input.peek(Ident) {
            let word: Ident = input.parse()?;
            if word == "other" && input.is_empty() {
                return Ok(Self::Other);
            }
            if word == "transparent" && input.is_empty() {
                return Ok(Self::Transparent);
            }
            let message = "the wire name is a text: #[event(\"DepositMade\")]";
            return Err(Error::new(word.span(), message));
        }
        let name: LitStr = input.parse().map_err(|error| {
            Error::new(
                error.span(),
                "the wire name is a text: #[event(\"DepositMade\")]",
            )
        })?;
        check_name(&name)?;
        if input.is_empty() {
            return Ok(Self::Kind(name, 1));
        }
        input.parse::<Token![,]>()?;
        let word: Ident = input.parse()?;
        if word != "version" {
            let message =
                "only a version can follow the name: #[event(\"DepositMade\", version = 2)]";
            return Err(Error::new(word.span(), message));
        }
        input.parse::<Token![=]>()?;
        let number: LitInt = input.parse().map_err(version_error)?;
        match number.base10_parse::<u32>() {
            Ok(version) if version > 0 => Ok(Self::Kind(name, version)),
            _ => Err(version_error(Error::new(number.span(), ""))),
        }
    }
}

fn version_error(at: Error) -> Error {
    Error::new(at.span(), "a version is a whole number from 1: version = 2")
}

fn check_name(name: &LitStr) -> Result<(), Error> {
    match name.value().len() {
        0 => Err(Error::new(name.span(), "a wire name cannot be empty")),
        1..=EVENT_TYPE_BYTES_MAX => Ok(()),
        length => {
            let message = format!(
                "a wire name has at most {EVENT_TYPE_BYTES_MAX} bytes, this one has {length}"
            );
            Err(Error::new(name.span(), message))
        }
    }
}

/// What `#[event(...)]` says above the enum.
#[derive(Default)]
pub(crate) struct EnumAttributes {
    pub(crate) upcast: Option<Path>,
    pub(crate) skip_unknown: bool,
    /// The variant of `leftfold::Format`.
    pub(crate) format: Option<Ident>,
}

impl EnumAttributes {
    pub(crate) fn read(attributes: &[Attribute]) -> Result<Self, Error> {
        let mut says = Self::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("upcast") {
                    says.upcast = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("unknown") {
                    let what: LitStr = meta.value()?.parse()?;
                    says.skip_unknown = match what.value().as_str() {
                        "skip" => true,
                        "error" => false,
                        _ => return Err(Error::new(what.span(), UNKNOWN)),
                    };
                } else if meta.path.is_ident("format") {
                    let what: LitStr = meta.value()?.parse()?;
                    let format = match what.value().as_str() {
                        "json" => "Json",
                        "messagepack" => "MessagePack",
                        "cbor" => "Cbor",
                        _ => {
                            return Err(Error::new(
                                what.span(),
                                "formats are \"json\", \"messagepack\" and \"cbor\"",
                            ));
                        }
                    };
                    says.format = Some(Ident::new(format, what.span()));
                } else {
                    return Err(meta.error(ENUM));
                }
                Ok(())
            })?;
        }
        Ok(says)
    }
}

/// The one attribute of this name, if there is one.
pub(crate) fn only<'a>(
    attributes: &'a [Attribute],
    name: &str,
    twice: &str,
) -> Result<Option<&'a Attribute>, Error> {
    let mut found = attributes.iter().filter(|a| a.path().is_ident(name));
    let first = found.next();
    match found.next() {
        Some(second) => Err(Error::new(second.span(), twice)),
        None => Ok(first),
    }
}
