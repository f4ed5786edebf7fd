//! The reference of the command line: docs/command-line.md is compared with the flags.
//!
//! **Owns:** the comparison, and writing the page on request. **Does not know:** any flag.

use std::{env, fs, path::Path};

use clap_markdown::MarkdownOptions;

use crate::cli::Cli;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/command-line.md");

#[test]
fn the_reference_of_the_command_line_is_what_the_flags_say() {
    let options = MarkdownOptions::new()
        .title("Command line".to_owned())
        .show_footer(false);
    let generated = clap_markdown::help_markdown_custom::<Cli>(&options);
    let generated: Vec<_> = generated.trim_end().lines().map(str::trim_end).collect();
    let generated = generated.join("\n") + "\n";
    if env::var_os("LEFTFOLD_UPDATE").is_some() {
        fs::write(Path::new(PAGE), &generated).unwrap();
    }
    let page = fs::read_to_string(PAGE).unwrap();
    assert!(
        page == generated,
        "docs/command-line.md differs from the flags; run this test with LEFTFOLD_UPDATE=1 and look at the difference"
    );
}
