//! `#[derive(Snapshot)]`.
//!
//! **Owns:** the code generated for a state. **Does not know:** when snapshots are taken.
//! **Invariants:** every field is described, so that a snapshot of another program's state is recognised.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error, LitInt, spanned::Spanned};

use crate::shape;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    if let Some(parameter) = input.generics.params.first() {
        let message = "a state with snapshots cannot be generic: a stored snapshot has one shape";
        return Err(Error::new(parameter.span(), message));
    }
    let (mut version, mut every) = (1_u32, 100_u32);
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("snapshot")) {
        attribute.parse_nested_meta(|meta| {
            let place = if meta.path.is_ident("version") {
                &mut version
            } else if meta.path.is_ident("every") {
                &mut every
            } else {
                return Err(meta.error("above a state stand version = 1 and every = 100"));
            };
            let number: LitInt = meta.value()?.parse()?;
            *place = number.base10_parse()?;
            if *place == 0 {
                return Err(Error::new(number.span(), "this is a whole number from 1"));
            }
            Ok(())
        })?;
    }
    let described = shape::expand(input)?;
    let ident = &input.ident;
    Ok(quote! {
        #described
        impl ::leftfold::Snapshot for #ident {
            const VERSION: u32 = #version;
            const EVERY: u32 = #every;
        }
    })
}
