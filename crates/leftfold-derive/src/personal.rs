//! `#[personal(...)]`: the fields of events that are sealed.
//!
//! **Owns:** the grammar of the attribute, and the constant that declares the fields. **Does not know:** keys, sealing.
//! **Invariants:** a field is declared if and only if its type is `Personal`; the names that the data has for it and
//! for its subject
//! are those of the fields.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, DeriveInput, Error, Field, Ident, LitStr, Meta, Type, Variant, spanned::Spanned,
};

use crate::{attributes::only, serde_attributes};

const GRAMMAR: &str = "say whose value this is: #[personal(subject = \"guest\")] if the field `guest` names the subject, or \
                       #[personal(subject = \"guest\", id = \"booked_by\")]";
const SERDE: &str = "a field with a personal value, and the one that names its subject, cannot be renamed or changed by serde: \
                     the value is bound to their names";

/// The constant that declares the personal fields of all variants; empty if there is none.
pub(crate) fn constant<'a>(
    input: &DeriveInput,
    variants: impl Iterator<Item = (&'a Variant, &'a LitStr)>,
    format: Option<&Ident>,
) -> Result<TokenStream, Error> {
    let mut declared = Vec::new();
    for (variant, event_type) in variants {
        for field in &variant.fields {
            let attribute = only(&field.attrs, "personal", "a value has one subject")?;
            let Some(attribute) = attribute else {
                if is_personal(&field.ty) {
                    return Err(Error::new(field.ty.span(), GRAMMAR));
                }
                continue;
            };
            if let Some(format) = format.filter(|format| *format != "Json") {
                let message = "personal fields need the format \"json\"";
                return Err(Error::new(format.span(), message));
            }
            let (subject, id) = parse(attribute)?;
            let name = checked(input, variant, field, &id)?.to_string();
            declared.push(quote!(::leftfold::PersonalField {
                event_type: #event_type,
                field: #name,
                subject: #subject,
                id_field: #id,
            }));
        }
    }
    if declared.is_empty() {
        return Ok(TokenStream::new());
    }
    Ok(quote! {
        const PERSONAL: &'static [::leftfold::PersonalField] = &[#(#declared),*];
    })
}

/// The kind of the subject, and the field that names it.
fn parse(attribute: &Attribute) -> Result<(LitStr, LitStr), Error> {
    if !matches!(attribute.meta, Meta::List(_)) {
        return Err(Error::new(attribute.span(), GRAMMAR));
    }
    let (mut subject, mut id) = (None, None);
    attribute.parse_nested_meta(|meta| {
        let place = if meta.path.is_ident("subject") {
            &mut subject
        } else if meta.path.is_ident("id") {
            &mut id
        } else {
            return Err(meta.error(GRAMMAR));
        };
        *place = Some(meta.value()?.parse::<LitStr>()?);
        Ok(())
    })?;
    let subject = subject.ok_or_else(|| Error::new(attribute.span(), GRAMMAR))?;
    let text = subject.value();
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty() || text.len() > 64 || !text.chars().all(valid) {
        let message = "the kind of a subject has 1 to 64 letters, digits and `_`";
        return Err(Error::new(subject.span(), message));
    }
    let id = id.unwrap_or_else(|| subject.clone());
    Ok((subject, id))
}

/// The name of the field, if its value can be sealed.
fn checked<'a>(
    input: &DeriveInput,
    variant: &Variant,
    field: &'a Field,
    id: &LitStr,
) -> Result<&'a Ident, Error> {
    let Some(name) = &field.ident else {
        let message = "a personal value stands in a field with a name";
        return Err(Error::new(field.span(), message));
    };
    if !is_personal(&field.ty) {
        let message = "a personal field is a `leftfold::Personal<...>`, which can be read after it was forgotten";
        return Err(Error::new(field.ty.span(), message));
    }
    let names = |field: &&Field| field.ident.as_ref().is_some_and(|name| *name == id.value());
    let Some(subject) = variant.fields.iter().find(names) else {
        let message = format!(
            "no field `{0}` names the subject; add it, or write id = \"...\"",
            id.value()
        );
        return Err(Error::new(id.span(), message));
    };
    let changed = [&input.attrs, &variant.attrs, &field.attrs, &subject.attrs];
    let changed = changed.into_iter().zip([true, false, false, false]);
    for (attributes, of_enum) in changed {
        let text = match of_enum {
            true => serde_attributes::text_for_fields(attributes)?,
            false => serde_attributes::text(attributes),
        };
        if !text.is_empty() {
            return Err(Error::new(name.span(), SERDE));
        }
    }
    Ok(name)
}

fn is_personal(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path
        .segments
        .last()
        .is_some_and(|last| last.ident == "Personal")
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;
    use crate::event::expand;

    #[track_caller]
    fn refused(input: &DeriveInput, because: &str) {
        let error = expand(input).unwrap_err().to_string();
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn fields_that_cannot_be_sealed_are_refused_with_what_is_wrong() {
        let unmarked: DeriveInput = parse_quote! {
            enum E { #[event("E")] A { guest: String, name: Personal<String> } }
        };
        refused(&unmarked, "say whose value this is");
        let other_type: DeriveInput = parse_quote! {
            enum E { #[event("E")] A { guest: String, #[personal(subject = "guest")] name: String } }
        };
        refused(&other_type, "leftfold::Personal");
        let no_subject: DeriveInput = parse_quote! {
            enum E { #[event("E")] A { #[personal(subject = "guest")] name: Personal<String> } }
        };
        refused(&no_subject, "no field `guest` names the subject");
        let no_name: DeriveInput = parse_quote! {
            enum E { #[event("E")] A(#[personal(subject = "guest")] Personal<String>) }
        };
        refused(&no_name, "a field with a name");
        let renamed: DeriveInput = parse_quote! {
            enum E { #[event("E")] A {
                #[serde(rename = "g")] guest: String,
                #[personal(subject = "guest")] name: Personal<String>,
            } }
        };
        refused(&renamed, "cannot be renamed");
        let cbor: DeriveInput = parse_quote! {
            #[event(format = "cbor")]
            enum E { #[event("E")] A { guest: String, #[personal(subject = "guest")] name: Personal<String> } }
        };
        refused(&cbor, "the format \"json\"");
        let kind: DeriveInput = parse_quote! {
            enum E { #[event("E")] A { guest: String, #[personal(subject = "a b", id = "guest")] name: Personal<String> } }
        };
        refused(&kind, "letters, digits");
    }

    #[test]
    fn fields_are_declared_with_their_subjects() {
        let input: DeriveInput = parse_quote! {
            enum E { #[event("Booked")] A {
                by: u64,
                #[personal(subject = "guest", id = "by")] name: leftfold::Personal<String>,
            } }
        };
        let expanded = expand(&input).unwrap().to_string();
        let declared =
            "event_type : \"Booked\" , field : \"name\" , subject : \"guest\" , id_field : \"by\"";
        assert!(expanded.contains(declared), "{expanded}");
    }
}
