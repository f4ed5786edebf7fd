//! Every code block of the guide stands in one of the files here, so it was compiled and run.

use std::{fs, path::Path};

/// Lines without what is in front of all of them.
fn dedented(lines: &[&str]) -> Vec<String> {
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let shared = lines
        .iter()
        .filter(|line| !line.trim().is_empty())
        .map(indent)
        .min();
    let cut = |line: &&str| line.get(shared.unwrap_or(0)..).unwrap_or("").to_owned();
    lines.iter().map(cut).collect()
}

/// The Rust blocks of a page.
fn blocks(page: &str) -> Vec<Vec<&str>> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in page.lines() {
        match (&mut open, line) {
            (None, "```rust") => open = Some(Vec::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(lines), line) => lines.push(line),
            (None, _) => {}
        }
    }
    blocks
}

/// Whether all items of a block stand in a file, whatever is between them there.
fn stands_in(source: &str, block: &[&str]) -> bool {
    let lines: Vec<_> = source.lines().collect();
    let joined = block.join("\n");
    let mut items: Vec<String> = Vec::new();
    for part in joined.split("\n\n") {
        match items.last_mut() {
            Some(item) if part.starts_with([' ', '}']) => *item += &format!("\n\n{part}"),
            _ => items.push(part.to_owned()),
        }
    }
    items.iter().all(|item| {
        let item: Vec<_> = item.lines().collect();
        let wanted = dedented(&item);
        let mut windows = lines.windows(item.len());
        windows.any(|window| dedented(window) == wanted)
    })
}

#[test]
fn every_code_block_of_the_guide_stands_in_a_file_that_is_compiled_and_run() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let texts = |directory: &Path, extension: &str| -> Vec<(String, String)> {
        let files = fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().path());
        let wanted = files.filter(|path| path.extension().is_some_and(|e| e == extension));
        wanted
            .map(|path| {
                (
                    path.display().to_string(),
                    fs::read_to_string(path).unwrap(),
                )
            })
            .collect()
    };
    let sources = texts(&package.join("tests/guide"), "rs");
    let mut checked = 0;
    for (page, text) in texts(&package.join("../../docs/guide"), "md") {
        for block in blocks(&text) {
            let found = sources.iter().any(|(_, source)| stands_in(source, &block));
            assert!(
                found,
                "{page}: this block stands in no file:\n{}",
                block.join("\n")
            );
            checked += 1;
        }
    }
    assert!(checked >= 15, "only {checked} blocks");
}
