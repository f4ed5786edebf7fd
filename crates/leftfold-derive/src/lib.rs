//! The derive macros of the Leftfold framework; use them through the crate `leftfold`.
//!
//! **Owns:** `#[derive(Event)]`: reading the enum, and messages that say how to mend it.
//! **Does not know:** stores, encodings; the generated code calls into `leftfold` for both.
//! **Invariants:** a wire name is always written out, so that renaming a variant never changes what is stored; every
//! mistake is reported at the place where it was made.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, LitStr, Variant, parse_macro_input, spanned::Spanned};

/// Bytes of an event type, at most: `leftfold_model::limits::EVENT_TYPE_BYTES_MAX`.
const EVENT_TYPE_BYTES_MAX: usize = 255;

/// Makes an enum the events of an aggregate. Each variant names its type on the wire: `#[event("DepositMade")]`.
///
/// The enum must also derive serde's `Serialize` and `Deserialize`; the variant's fields become the event's JSON data,
/// and serde's attributes on fields are honoured. See `leftfold::Event`.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let Data::Enum(data) = &input.data else {
        let message = "events are an enum with one variant for each kind of event";
        return Err(Error::new(input.ident.span(), message));
    };
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new(
            parameter.span(),
            "an enum of events cannot be generic: stored events have one shape",
        ));
    }
    if data.variants.is_empty() {
        return Err(Error::new(
            input.ident.span(),
            "an enum of events needs at least one variant",
        ));
    }
    let mut names = Vec::new();
    let mut seen: HashMap<String, ()> = HashMap::new();
    for variant in &data.variants {
        let name = wire_name(variant)?;
        if seen.insert(name.value(), ()).is_some() {
            let message = format!(
                "two variants have the wire name {:?}; a stored event must mean one of them",
                name.value()
            );
            return Err(Error::new(name.span(), message));
        }
        names.push(name);
    }
    let ident = &input.ident;
    let variants = data.variants.iter().map(|variant| &variant.ident);
    let lookup = &names;
    Ok(quote! {
        impl ::leftfold::Event for #ident {
            const TYPES: &'static [&'static str] = &[#(#names),*];

            fn event_type(&self) -> &'static str {
                match self {
                    #(Self::#variants { .. } => #lookup,)*
                }
            }

            fn encode(&self) -> ::core::result::Result<::std::vec::Vec<u8>, ::leftfold::EncodeError> {
                ::leftfold::__private::encode(self)
            }

            fn decode(
                event_type: &str,
                data: &[u8],
            ) -> ::core::result::Result<Self, ::leftfold::DecodeError> {
                ::leftfold::__private::decode(Self::TYPES, event_type, data)
            }
        }
    })
}

/// The name in `#[event("...")]`.
fn wire_name(variant: &Variant) -> Result<LitStr, Error> {
    let mut names = variant
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("event"));
    let Some(attribute) = names.next() else {
        let message = format!(
            "variant `{0}` has no wire name; write #[event(\"{0}\")] above it and never change the name again",
            variant.ident
        );
        return Err(Error::new(variant.ident.span(), message));
    };
    if let Some(second) = names.next() {
        return Err(Error::new(second.span(), "a variant has one wire name"));
    }
    let name: LitStr = attribute.parse_args().map_err(|error| {
        Error::new(
            error.span(),
            "the wire name is a text: #[event(\"DepositMade\")]",
        )
    })?;
    match name.value().len() {
        0 => Err(Error::new(name.span(), "a wire name cannot be empty")),
        1..=EVENT_TYPE_BYTES_MAX => Ok(name),
        length => {
            let message = format!(
                "a wire name has at most {EVENT_TYPE_BYTES_MAX} bytes, this one has {length}"
            );
            Err(Error::new(name.span(), message))
        }
    }
}
