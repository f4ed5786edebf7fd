//! `#[derive(Event)]`.
//!
//! **Owns:** the code generated for an enum of events. **Does not know:** how fields are encoded.
//! **Invariants:** the index of a kind is the number serde gives its variant, so the variant for unknown events comes last.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Data, DataEnum, DeriveInput, Error, Fields, GenericArgument, Ident, LitStr, PathArguments,
    Type, Variant, spanned::Spanned,
};

use crate::{
    attributes::{EnumAttributes, VariantAttributes},
    personal, serde_attributes, shape, transparent,
};

/// A variant that is written.
struct Kind<'a> {
    variant: &'a Variant,
    name: LitStr,
    version: u32,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let data = checked(input)?;
    serde_attributes::check_enum(&input.attrs)?;
    let says = EnumAttributes::read(&input.attrs)?;
    if let Some(enums) = transparent::read(data)? {
        return transparent::expand(&input.ident, &enums, &says);
    }
    let (kinds, other) = read_variants(data)?;
    let ident = &input.ident;
    let constants = constants(&kinds, &says, other.is_some());
    let named = kinds.iter().map(|kind| (kind.variant, &kind.name));
    let personal = personal::constant(input, named, says.format.as_ref())?;
    let looks = accessors(&kinds, other);
    let codec = codec(&kinds, other, &says);
    let shapes = kinds.iter().enumerate().map(|(index, kind)| {
        let fields = shape::fields(&kind.variant.fields, false)?;
        let all = serde_attributes::text_for_fields(&input.attrs)?;
        let text = format!("{all}{}", serde_attributes::text(&kind.variant.attrs));
        let note = (!text.is_empty()).then(|| quote!(shapes.note(#text);));
        Ok(quote!(#index => { #note #fields }))
    });
    let shapes = shapes.collect::<Result<Vec<_>, Error>>()?;
    let upcasts = match &says.upcast {
        Some(function) => quote!(#function()),
        None => quote!(::leftfold::Upcasters::new()),
    };
    Ok(quote! {
        impl ::leftfold::Event for #ident {
            #constants
            #personal
            #looks
            #codec
            fn shape(kind: usize) -> ::std::string::String {
                #[allow(unused_imports, reason = "which one is used depends on the fields")]
                use ::leftfold::__private::{DescribeByName as _, DescribeByShape as _};
                let mut shapes = ::leftfold::__private::ShapeWriter::new();
                match kind {
                    #(#shapes)*
                    _ => {}
                }
                shapes.into_text()
            }
            fn upcasts() -> &'static ::leftfold::Upcasters {
                static UPCASTS: ::std::sync::OnceLock<::leftfold::Upcasters> = ::std::sync::OnceLock::new();
                UPCASTS.get_or_init(|| #upcasts.checked(<Self as ::leftfold::Event>::KINDS))
            }
        }
    })
}

/// The enum, if it can be one of events.
fn checked(input: &DeriveInput) -> Result<&DataEnum, Error> {
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
    Ok(data)
}

/// The variants that are written, and the one for unknown events.
fn read_variants(data: &DataEnum) -> Result<(Vec<Kind<'_>>, Option<&Variant>), Error> {
    let mut kinds = Vec::new();
    let mut seen = HashSet::new();
    let mut other = None;
    for variant in &data.variants {
        serde_attributes::check_variant(&variant.attrs)?;
        if let Some(other) = other {
            let message = "the variant for unknown events comes last";
            return Err(Error::new(Spanned::span(other), message));
        }
        match VariantAttributes::of(variant)? {
            VariantAttributes::Other => {
                if !matches!(&variant.fields, Fields::Unnamed(fields) if fields.unnamed.len() == 1)
                {
                    let message = format!(
                        "the variant for unknown events holds one: {}(leftfold::UnknownEvent)",
                        variant.ident
                    );
                    return Err(Error::new(variant.span(), message));
                }
                other = Some(variant);
            }
            VariantAttributes::Transparent => return Err(transparent::mixed(variant)),
            VariantAttributes::Kind(name, version) => {
                if !seen.insert(name.value()) {
                    let message = format!(
                        "two variants have the wire name {:?}; a stored event must mean one of them",
                        name.value()
                    );
                    return Err(Error::new(name.span(), message));
                }
                kinds.push(Kind {
                    variant,
                    name,
                    version,
                });
            }
        }
    }
    Ok((kinds, other))
}

fn constants(kinds: &[Kind<'_>], says: &EnumAttributes, raw: bool) -> TokenStream {
    let entries = kinds.iter().map(
        |Kind { name, version, .. }| quote!(::leftfold::EventKind { name: #name, version: #version }),
    );
    let unknown = match (raw, says.skip_unknown) {
        (true, _) => format_ident!("Raw"),
        (false, true) => format_ident!("Skip"),
        (false, false) => format_ident!("Error"),
    };
    quote! {
        const KINDS: &'static [::leftfold::EventKind] = &[#(#entries),*];
        const UNKNOWN: ::leftfold::UnknownEventPolicy = ::leftfold::UnknownEventPolicy::#unknown;
    }
}

/// Type, version and tags of a value.
fn accessors(kinds: &[Kind<'_>], other: Option<&Variant>) -> TokenStream {
    let variants: Vec<_> = kinds.iter().map(|kind| &kind.variant.ident).collect();
    let names = kinds.iter().map(|kind| &kind.name);
    let versions = kinds.iter().map(|kind| kind.version);
    let other: Vec<_> = other.map(|variant| &variant.ident).into_iter().collect();
    let tags = kinds.iter().map(|kind| tags(kind.variant));
    quote! {
        fn event_type(&self) -> &str {
            match self {
                #(Self::#variants { .. } => #names,)*
                #(Self::#other(raw) => &raw.event_type,)*
            }
        }
        fn version(&self) -> u32 {
            match self {
                #(Self::#variants { .. } => #versions,)*
                #(Self::#other(raw) => raw.version,)*
            }
        }
        fn tags(&self) -> ::core::result::Result<
            ::std::vec::Vec<::leftfold::model::Tag>,
            ::leftfold::model::ModelError,
        > {
            #[allow(unused_mut, reason = "not every enum has tags")]
            let mut tags = ::std::vec::Vec::new();
            match self {
                #(#tags)*
                #(Self::#other(_) => {})*
            }
            ::core::result::Result::Ok(tags)
        }
    }
}

/// The arm that collects the tags of a variant.
fn tags(variant: &Variant) -> TokenStream {
    let ident = &variant.ident;
    let mut patterns = Vec::new();
    let mut pushes = Vec::new();
    for (index, field) in variant.fields.iter().enumerate() {
        let binding = format_ident!("field_{index}");
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("tag")) {
            let member = match &field.ident {
                Some(name) => quote!(#name),
                None => {
                    let index = syn::Index::from(index);
                    quote!(#index)
                }
            };
            patterns.push(quote!(#member: #binding));
            pushes.push(push_tag(attribute, &binding, &field.ty));
        }
    }
    quote!(Self::#ident { #(#patterns,)* .. } => { #(#pushes)* })
}

fn push_tag(attribute: &syn::Attribute, binding: &Ident, ty: &Type) -> TokenStream {
    let prefix: LitStr = match attribute.parse_args() {
        Ok(prefix) => prefix,
        Err(error) => {
            let message = "the tag's prefix is a text: #[tag(\"account\")]";
            return Error::new(error.span(), message).into_compile_error();
        }
    };
    let push = quote! {
        tags.push(::leftfold::model::Tag::new(::std::format!("{}:{}", #prefix, value))?);
    };
    if is_one_of(ty, &["Option", "Vec"]) {
        quote!(for value in #binding.iter() { #push })
    } else {
        quote!({ let value = #binding; #push })
    }
}

/// Whether a type is one of these, which hold others.
fn is_one_of(ty: &Type, names: &[&str]) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| {
        let holds = matches!(&last.arguments, PathArguments::AngleBracketed(arguments)
            if matches!(arguments.args.first(), Some(GenericArgument::Type(_))));
        holds && names.iter().any(|name| last.ident == name)
    })
}

/// To data and back.
fn codec(kinds: &[Kind<'_>], other: Option<&Variant>, says: &EnumAttributes) -> TokenStream {
    let variants: Vec<_> = kinds.iter().map(|kind| &kind.variant.ident).collect();
    let format = says.format.clone().unwrap_or_else(|| format_ident!("Json"));
    let other: Vec<_> = other.map(|variant| &variant.ident).into_iter().collect();
    quote! {
        fn encode(&self) -> ::core::result::Result<::leftfold::Encoded, ::leftfold::EncodeError> {
            match self {
                #(Self::#other(raw) => ::core::result::Result::Ok(raw.encoded()),)*
                #(Self::#variants { .. })|* => {
                    ::leftfold::__private::encode(::leftfold::Format::#format, self)
                }
            }
        }
        fn decode(
            kind: usize,
            data: ::leftfold::Data<'_>,
        ) -> ::core::result::Result<Self, ::leftfold::DecodeError> {
            ::leftfold::__private::decode(kind, data)
        }
        fn presences(&self) -> usize {
            match self {
                #(Self::#other(_) => 0,)*
                #(Self::#variants { .. })|* => ::leftfold::__private::presences(self),
            }
        }
        #(fn other(raw: ::leftfold::UnknownEvent) -> ::core::option::Option<Self> {
            ::core::option::Option::Some(Self::#other(raw))
        })*
    }
}
