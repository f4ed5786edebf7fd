//! The paths that a file's code writes from the crate's root.
//!
//! **Owns:** resolving `crate::` and `super::` to the first name below the root.
//! **Does not know:** which names are modules.

/// The first names below the crate's root that a file mentions, each with its byte offset in `code`.
///
/// `depth` is how many modules the file is below the root: 1 for `src/read.rs` and `src/read/mod.rs`.
pub(crate) fn from_root(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (offset, _) in code.match_indices("crate::") {
        let starts_path = !code.get(..offset).is_some_and(|t| t.ends_with(is_word));
        if starts_path {
            found.extend(first_names(code, offset + "crate::".len()));
        }
    }
    let climb = "super::".repeat(depth);
    for (offset, _) in code.match_indices(&climb) {
        let starts_path = !code
            .get(..offset)
            .is_some_and(|t| t.ends_with(|c| is_word(c) || c == ':'));
        if depth > 0 && starts_path {
            found.extend(first_names(code, offset + climb.len()));
        }
    }
    found
}

/// The name at an offset, or the first name of every entry of the braces there.
fn first_names(code: &str, offset: usize) -> Vec<(usize, &str)> {
    let Some(rest) = code.get(offset..) else {
        return Vec::new();
    };
    if !rest.starts_with('{') {
        return name_at(code, offset).into_iter().collect();
    }
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut at_entry = false;
    for (index, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match c {
            '{' if depth == 1 => at_entry = true,
            '}' if depth == 0 => break,
            ',' if depth == 1 => at_entry = true,
            c if at_entry && is_word(c) => {
                found.extend(name_at(code, offset + index));
                at_entry = false;
            }
            _ => {}
        }
    }
    found
}

fn name_at(code: &str, offset: usize) -> Option<(usize, &str)> {
    let rest = code.get(offset..)?;
    let name = rest
        .split(|c| !is_word(c))
        .next()
        .filter(|name| !name.is_empty())?;
    Some((offset, name))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(code: &str, depth: usize) -> Vec<&str> {
        from_root(code, depth)
            .into_iter()
            .map(|(_, name)| name)
            .collect()
    }

    #[test]
    fn imports_and_inline_paths_are_both_found() {
        assert_eq!(
            names("use crate::disk::Disk; fn f(a: crate::read::View) {}", 1),
            ["disk", "read"]
        );
    }

    #[test]
    fn braces_give_the_first_name_of_each_entry() {
        let code = "use crate::{\n    disk::{Disk, real::RealDisk},\n    planted::{self, Planted},\n    Log,\n};";
        assert_eq!(names(code, 1), ["disk", "planted", "Log"]);
    }

    #[test]
    fn climbing_to_the_root_counts_and_climbing_less_does_not() {
        assert_eq!(names("use super::engine::Core;", 1), ["engine"]);
        assert!(names("use super::frame::Frame;", 2).is_empty());
        assert_eq!(
            names("use super::super::{engine, read};", 2),
            ["engine", "read"]
        );
    }

    #[test]
    fn visibility_and_other_crates_are_no_paths_from_the_root() {
        assert!(
            names(
                "pub(crate) fn f() {} use mycrate::read; use leftfold_model::Read;",
                1
            )
            .is_empty()
        );
    }
}
