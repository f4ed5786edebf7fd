//! `#[derive(Shape)]`, and the shapes of fields for the other macros.
//!
//! **Owns:** the code that describes fields. **Does not know:** what descriptions are compared with.
//! **Invariants:** whatever changes how serde writes a field changes its description: name, type, and serde's attributes.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, GenericArgument, PathArguments, Type,
    spanned::Spanned,
};

use crate::serde_attributes::{self, without_spaces};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let ident = &input.ident;
    let name = ident.to_string();
    let serde = serde_attributes::text(&input.attrs);
    let body = body(&input.data, input)?;
    let (implementation, types, conditions) = input.generics.split_for_impl();
    Ok(quote! {
        impl #implementation ::leftfold::Shape for #ident #types #conditions {
            fn describe(shapes: &mut ::leftfold::__private::ShapeWriter) {
                #[allow(unused_imports, reason = "which one is used depends on the fields")]
                use ::leftfold::__private::{DescribeByName as _, DescribeByShape as _};
                if shapes.begin(::core::any::type_name::<Self>(), ::core::concat!(#serde, #name)) {
                    #body
                    shapes.end();
                }
            }
        }
    })
}

fn body(data: &Data, input: &DeriveInput) -> Result<TokenStream, Error> {
    match data {
        Data::Struct(data) => fields(&data.fields, true),
        Data::Enum(data) => {
            serde_attributes::check_state_enum(&input.attrs)?;
            let variants = data.variants.iter().map(|variant| {
                serde_attributes::check_state_enum(&variant.attrs)?;
                let label = format!(
                    "{}{}",
                    serde_attributes::text(&variant.attrs),
                    variant.ident
                );
                let fields = fields(&variant.fields, true)?;
                Ok(quote! {
                    shapes.open(#label);
                    #fields
                    shapes.end();
                })
            });
            let variants = variants.collect::<Result<Vec<_>, Error>>()?;
            Ok(quote!(#(#variants)*))
        }
        Data::Union(_) => Err(Error::new(input.span(), "a union cannot be stored")),
    }
}

/// Statements that describe fields to `shapes`. Strict: a type that has no `Shape` is a mistake, unless it is marked
/// `#[snapshot(opaque)]`; otherwise such a type is described by its name.
pub(crate) fn fields(fields: &Fields, strict: bool) -> Result<TokenStream, Error> {
    let described = fields.iter().enumerate().map(|(index, field)| {
        let label = match &field.ident {
            Some(name) => name.to_string(),
            None => index.to_string(),
        };
        let label = format!(
            "{}{}{label}",
            tags_text(&field.attrs),
            serde_attributes::text(&field.attrs)
        );
        let ty = &field.ty;
        let text = without_spaces(ty);
        if strict {
            serde_attributes::check_state_field(&field.attrs)?;
        }
        if holds_option_of_option(ty) && (strict || !serde_attributes::has_decoder(&field.attrs)?) {
            let message =
                "an Option of an Option comes back as None where it was Some(None); use an enum";
            return Err(Error::new(ty.span(), message));
        }
        Ok(if is_opaque(field)? {
            quote!(shapes.field(#label, #text);)
        } else if strict {
            quote! {
                shapes.open(#label);
                <#ty as ::leftfold::Shape>::describe(shapes);
                shapes.end();
            }
        } else {
            quote! {
                shapes.open(#label);
                (&::leftfold::__private::Probe::<#ty>::new(#text)).describe(&mut shapes);
                shapes.end();
            }
        })
    });
    let described = described.collect::<Result<Vec<_>, Error>>()?;
    Ok(quote!(#(#described)*))
}

fn is_opaque(field: &Field) -> Result<bool, Error> {
    let mut opaque = false;
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("snapshot")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("opaque") {
                opaque = true;
                Ok(())
            } else {
                Err(meta.error("above a field stands #[snapshot(opaque)] or nothing"))
            }
        })?;
    }
    Ok(opaque)
}

/// Returns the text of the tags that a field gives, and of whose value it is, in front of its name.
fn tags_text(attributes: &[Attribute]) -> String {
    let own = |a: &&Attribute| a.path().is_ident("tag") || a.path().is_ident("personal");
    let tags = attributes.iter().filter(own);
    tags.map(|a| without_spaces(&a.meta) + " ").collect()
}

/// Whether a type is or holds an `Option` of an `Option`: all formats write both kinds of nothing alike.
fn holds_option_of_option(ty: &Type) -> bool {
    let of_option = is_option(ty);
    parts(ty)
        .into_iter()
        .any(|part| of_option && is_option(part) || holds_option_of_option(part))
}

fn is_option(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    let last = path.path.segments.last();
    last.is_some_and(|last| last.ident == "Option")
}

/// The types that a type names as its parts.
fn parts(ty: &Type) -> Vec<&Type> {
    match ty {
        Type::Path(path) => match path.path.segments.last().map(|last| &last.arguments) {
            Some(PathArguments::AngleBracketed(arguments)) => {
                let of_types = arguments.args.iter().filter_map(|argument| match argument {
                    GenericArgument::Type(ty) => Some(ty),
                    _ => None,
                });
                of_types.collect()
            }
            _ => Vec::new(),
        },
        Type::Tuple(tuple) => tuple.elems.iter().collect(),
        Type::Array(array) => vec![&array.elem],
        Type::Paren(paren) => vec![&paren.elem],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use crate::event::expand;

    #[test]
    fn enums_whose_variants_would_come_back_as_others_are_refused_in_states() {
        let refused: [syn::DeriveInput; 2] = [
            parse_quote! { #[serde(untagged)] enum Change { In(u64), Out(u64) } },
            parse_quote! { enum Change { In(u64), #[serde(untagged)] Other(u64) } },
        ];
        for input in refused {
            let error = super::expand(&input).unwrap_err().to_string();
            assert!(error.contains("the same form"), "{error}");
        }
        let tagged =
            parse_quote! { #[serde(tag = "kind")] enum Change { In { by: u64 }, Out { by: u64 } } };
        super::expand(&tagged).unwrap();
    }

    #[test]
    fn fields_of_events_that_would_come_back_as_others_are_refused() {
        let refused: [syn::Type; 4] = [
            parse_quote!(Option<Option<String>>),
            parse_quote!(Vec<Option<std::option::Option<u8>>>),
            parse_quote!(HashMap<String, (u8, Option<Option<u8>>)>),
            parse_quote!([Option<Option<u8>>; 2]),
        ];
        for ty in refused {
            let event = parse_quote! { enum E { #[event("E")] A { field: #ty } } };
            let error = expand(&event).unwrap_err().to_string();
            assert!(error.contains("Option of an Option"), "{error}");
        }
        let taken: [syn::Type; 3] = [
            parse_quote!(Option<Vec<Option<u8>>>),
            parse_quote!(Option<Patch<Option<u8>>>),
            parse_quote!((Option<u8>, Option<u8>)),
        ];
        for ty in taken {
            let event = parse_quote! { enum E { #[event("E")] A { field: #ty } } };
            expand(&event).unwrap();
        }
        // A decoder of the program's own may tell them apart.
        let event = parse_quote! { enum E { #[event("E")] A {
            #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
            field: Option<Option<u8>>,
        } } };
        expand(&event).unwrap();
    }
}
