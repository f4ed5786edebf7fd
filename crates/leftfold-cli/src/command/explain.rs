//! `leftfold explain`: what an error code means.
//!
//! **Owns:** printing a page, or the list of all. **Does not know:** which error has which code.

use std::io::Write;

use leftfold_error_codes::ErrorCode;

use super::output;

pub(crate) fn run(code: Option<ErrorCode>) -> anyhow::Result<()> {
    let mut out = output();
    match code {
        Some(code) => out.write_all(code.page().as_bytes())?,
        None => {
            for code in ErrorCode::ALL {
                writeln!(out, "{code}  {}", code.title())?;
            }
        }
    }
    Ok(out.flush()?)
}
