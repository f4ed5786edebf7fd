//! Relative links in documents.
//!
//! **Owns:** what a link is, and how a heading becomes an anchor.
//! **Does not know:** files; the caller says what stands at a path. Links to other sites are never followed.

use crate::violation::Violation;

/// What a link leads to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A Markdown document, with its text, in which anchors can be looked up.
    Document(String),
    /// Any other file or folder.
    Other,
}

/// Every link of a document that leads nowhere.
pub(crate) fn check(
    path: &str,
    text: &str,
    find: &dyn Fn(&str) -> Option<Target>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, link) in links(text) {
        if link.contains("://") || link.starts_with("mailto:") || link.starts_with('<') {
            continue;
        }
        let (file, anchor) = link.split_once('#').unwrap_or((link.as_str(), ""));
        let target = if file.is_empty() {
            Some(Target::Document(text.to_owned()))
        } else {
            join(path, file).and_then(|joined| find(&joined))
        };
        let what = match target {
            None => format!("the link `{link}` leads to no file"),
            Some(Target::Document(text))
                if !anchor.is_empty() && !anchors(&text).contains(&anchor.to_owned()) =>
            {
                format!("the link `{link}` leads to no heading")
            }
            Some(_) => continue,
        };
        found.push(Violation {
            path: path.to_owned(),
            line,
            what,
            why: "a reader who follows a dead link stops trusting the rest",
            fix: "mend the path or the heading's name, relative to this document",
        });
    }
    found
}

/// The path that a link means, seen from the document it stands in.
fn join(document: &str, link: &str) -> Option<String> {
    let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if link.starts_with('/') {
        parts.clear();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The lines outside fenced code, each with its number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!in_code && !fence).then_some((index + 1, line))
    })
}

/// The targets of `[text](target)` and of `[name]: target`, outside code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let spoken: String = line
            .split('`')
            .step_by(2)
            .collect::<Vec<&str>>()
            .join("code");
        for (offset, _) in spoken.match_indices("](") {
            let target = spoken
                .get(offset + 2..)
                .and_then(|rest| rest.split([')', ' ']).next());
            found.extend(target.map(|target| (number, target.to_owned())));
        }
        if spoken.starts_with('[')
            && !spoken.starts_with("[^")
            && let Some((_, target)) = spoken.split_once("]: ")
        {
            found.extend(
                target
                    .split(' ')
                    .next()
                    .map(|target| (number, target.to_owned())),
            );
        }
    }
    found
}

/// The anchors of a document's headings, as the common renderers make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text)
        .map(|(_, line)| line)
        .filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> usize {
        let find = |path: &str| match path {
            "README.md" => Some(Target::Document("# Quick start: `run` it\n".to_owned())),
            "docs/glossary.md" | "docs/adr/0001.md" => Some(Target::Document(String::new())),
            "crates" => Some(Target::Other),
            _ => None,
        };
        check("docs/adr/0002.md", text, &find).len()
    }

    #[test]
    fn relative_links_to_files_and_folders_resolve() {
        assert_eq!(
            broken("[a](0001.md), [b](../glossary.md) and [c](../../crates/)"),
            0
        );
        assert_eq!(broken("[b](../missing.md)"), 1);
        assert_eq!(broken("[b](../../../outside.md)"), 1);
    }

    #[test]
    fn reference_style_links_resolve() {
        assert_eq!(broken("[a]: ../glossary.md"), 0);
        assert_eq!(broken("[a]: missing.md \"title\""), 1);
    }

    #[test]
    fn anchors_are_looked_up_in_the_target() {
        assert_eq!(broken("[a](../../README.md#quick-start-run-it)"), 0);
        assert_eq!(broken("[a](../../README.md#slow-start)"), 1);
        assert_eq!(broken("## Here\n[a](#here)"), 0);
        assert_eq!(broken("## Here\n[a](#there)"), 1);
    }

    #[test]
    fn links_to_other_sites_and_links_in_code_are_left_alone() {
        assert_eq!(broken("[a](https://example.org/x.md)"), 0);
        assert_eq!(broken("`[a](missing.md)`\n```\n[a](missing.md)\n```"), 0);
    }
}
