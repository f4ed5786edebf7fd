//! `#[derive(Event)]` for an enum of enums: the events of several aggregates as one type.
//!
//! **Owns:** the code generated for variants marked `#[event(transparent)]`. **Does not know:** how events are encoded: each is
//! encoded by the enum that it comes from.
//! **Invariants:** the kinds are those of the enums, one enum after another, in the order of the variants; two enums that know
//! the same type do not compile.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DataEnum, Error, Fields, Ident, Type, Variant, spanned::Spanned};

use crate::attributes::{EnumAttributes, VariantAttributes};

/// A variant that holds the events of another enum.
pub(crate) struct Inner<'a> {
    variant: &'a Ident,
    events: &'a Type,
}

/// Reads the enums that the variants hold; `None` if no variant is transparent.
pub(crate) fn read(data: &DataEnum) -> Result<Option<Vec<Inner<'_>>>, Error> {
    let is_transparent = |variant: &Variant| {
        matches!(
            VariantAttributes::of(variant),
            Ok(VariantAttributes::Transparent)
        )
    };
    if !data.variants.iter().any(is_transparent) {
        return Ok(None);
    }
    let mut enums = Vec::new();
    for variant in &data.variants {
        let VariantAttributes::Transparent = VariantAttributes::of(variant)? else {
            return Err(mixed(variant));
        };
        let events = match &variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => fields.unnamed.first(),
            _ => None,
        };
        let Some(events) = events else {
            let message = format!(
                "a transparent variant holds one enum of events: {0}({0}Event)",
                variant.ident
            );
            return Err(Error::new(variant.span(), message));
        };
        enums.push(Inner {
            variant: &variant.ident,
            events: &events.ty,
        });
    }
    Ok(Some(enums))
}

/// The error of an enum that mixes both sorts of variants.
pub(crate) fn mixed(variant: &Variant) -> Error {
    let message = "either all variants are #[event(transparent)], each with the events of another enum, or none is";
    Error::new(variant.span(), message)
}

/// Generates the implementation, which passes everything on to the enums.
pub(crate) fn expand(
    ident: &Ident,
    enums: &[Inner<'_>],
    attributes: &EnumAttributes,
) -> Result<TokenStream, Error> {
    if attributes.upcast.is_some() || attributes.format.is_some() {
        let message = "upcast and format stand above the enums that the variants hold";
        return Err(Error::new(ident.span(), message));
    }
    let unknown = match attributes.skip_unknown {
        true => format_ident!("Skip"),
        false => format_ident!("Error"),
    };
    let variants: Vec<_> = enums.iter().map(|inner| inner.variant).collect();
    let events: Vec<_> = enums.iter().map(|inner| inner.events).collect();
    let by_value = by_value(&variants);
    Ok(quote! {
        impl ::leftfold::Event for #ident {
            const KINDS: &'static [::leftfold::EventKind] = {
                const ALL: [::leftfold::EventKind; 0 #(+ <#events as ::leftfold::Event>::KINDS.len())*] =
                    ::leftfold::__private::concat_kinds([#(<#events as ::leftfold::Event>::KINDS),*]);
                &ALL
            };
            const UNKNOWN: ::leftfold::UnknownEventPolicy = ::leftfold::UnknownEventPolicy::#unknown;
            #by_value
            fn decode(
                kind: usize,
                data: ::leftfold::Data<'_>,
            ) -> ::core::result::Result<Self, ::leftfold::DecodeError> {
                let mut kind = kind;
                #(
                    let kinds = <#events as ::leftfold::Event>::KINDS.len();
                    if kind < kinds {
                        return <#events as ::leftfold::Event>::decode(kind, data).map(Self::#variants);
                    }
                    kind -= kinds;
                )*
                let _ = kind;
                ::core::result::Result::Err(::leftfold::DecodeError::UnknownType {
                    known: Self::KINDS.iter().map(|kind| kind.name).collect(),
                })
            }
            fn shape(kind: usize) -> ::std::string::String {
                let mut kind = kind;
                #(
                    let kinds = <#events as ::leftfold::Event>::KINDS.len();
                    if kind < kinds {
                        return <#events as ::leftfold::Event>::shape(kind);
                    }
                    kind -= kinds;
                )*
                let _ = kind;
                ::std::string::String::new()
            }
            fn upcasts() -> &'static ::leftfold::Upcasters {
                static UPCASTS: ::std::sync::OnceLock<::leftfold::Upcasters> = ::std::sync::OnceLock::new();
                UPCASTS.get_or_init(|| {
                    ::leftfold::Upcasters::joined([#(<#events as ::leftfold::Event>::upcasts()),*])
                        .checked(<Self as ::leftfold::Event>::KINDS)
                })
            }
        }
    })
}

/// What a value answers by the event in it.
fn by_value(variants: &[&Ident]) -> TokenStream {
    quote! {
        fn event_type(&self) -> &str {
            match self { #(Self::#variants(event) => ::leftfold::Event::event_type(event),)* }
        }
        fn version(&self) -> u32 {
            match self { #(Self::#variants(event) => ::leftfold::Event::version(event),)* }
        }
        fn tags(&self) -> ::core::result::Result<
            ::std::vec::Vec<::leftfold::model::Tag>,
            ::leftfold::model::ModelError,
        > {
            match self { #(Self::#variants(event) => ::leftfold::Event::tags(event),)* }
        }
        fn encode(&self) -> ::core::result::Result<::leftfold::Encoded, ::leftfold::EncodeError> {
            match self { #(Self::#variants(event) => ::leftfold::Event::encode(event),)* }
        }
        fn presences(&self) -> usize {
            match self { #(Self::#variants(event) => ::leftfold::Event::presences(event),)* }
        }
    }
}
