//! Every dependency may be used under a licence on the allow list of `deny.toml`.
//!
//! **Owns:** reading licence expressions. **Does not know:** the list itself, which has one home, `deny.toml`, so
//! that this check and `cargo deny` cannot disagree.

use crate::{
    CheckError,
    metadata::{Depth, Package, Workspace},
    tree::Tree,
    violation::Violation,
};

const POLICY: &str = "deny.toml";

/// Every dependency with a licence that is not allowed, or with none.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Violation>, CheckError> {
    let allowed = allowed(&tree.text(POLICY)?);
    let workspace = Workspace::read(tree, Depth::WithDependencies)?;
    Ok(workspace
        .packages
        .iter()
        .filter_map(|package| judge(package, &allowed))
        .collect())
}

/// The licences of the `allow` list in the `[licenses]` section.
fn allowed(policy: &str) -> Vec<String> {
    let mut section = "";
    let mut in_list = false;
    let mut found = Vec::new();
    for line in policy
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
    {
        if line.starts_with('[') && !in_list {
            section = line;
        }
        in_list |= section == "[licenses]" && line.starts_with("allow");
        if in_list {
            found.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
            in_list = !line.ends_with(']');
        }
    }
    found
}

fn judge(package: &Package, allowed: &[String]) -> Option<Violation> {
    let expression = package.license.as_deref().unwrap_or_default();
    let fits = Expression::new(expression).fits(allowed);
    let Package { name, version, .. } = package;
    (!fits).then(|| Violation {
        path: "Cargo.lock".to_owned(),
        line: 1,
        what: format!("{name} {version} has the licence `{expression}`"),
        why: "users get this project under MIT or Apache-2.0 and must be able to rely on it",
        fix: "use another crate, or add the licence to deny.toml with the reason",
    })
}

/// A licence expression, read from left to right. `AND` binds closer than `OR`.
#[derive(Debug)]
struct Expression<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
}

impl<'a> Expression<'a> {
    fn new(text: &'a str) -> Self {
        // Old manifests write `MIT/Apache-2.0`.
        let mut tokens = Vec::new();
        for word in text.split([' ', '/']).filter(|word| !word.is_empty()) {
            let inner = word.trim_start_matches('(');
            tokens.extend(std::iter::repeat_n("(", word.len() - inner.len()));
            let name = inner.trim_end_matches(')');
            tokens.push(name);
            tokens.extend(std::iter::repeat_n(")", inner.len() - name.len()));
        }
        if text.contains('/') {
            let mut spelled = Vec::new();
            for token in tokens {
                if !spelled.is_empty() {
                    spelled.push("OR");
                }
                spelled.push(token);
            }
            tokens = spelled;
        }
        Self {
            tokens: tokens.into_iter().peekable(),
        }
    }

    fn fits(mut self, allowed: &[String]) -> bool {
        self.any(allowed) && self.tokens.peek().is_none()
    }

    fn any(&mut self, allowed: &[String]) -> bool {
        let mut fits = self.all(allowed);
        while self.tokens.next_if_eq(&"OR").is_some() {
            fits |= self.all(allowed);
        }
        fits
    }

    fn all(&mut self, allowed: &[String]) -> bool {
        let mut fits = self.one(allowed);
        while self.tokens.next_if_eq(&"AND").is_some() {
            fits &= self.one(allowed);
        }
        fits
    }

    fn one(&mut self, allowed: &[String]) -> bool {
        match self.tokens.next() {
            Some("(") => {
                let fits = self.any(allowed);
                fits && self.tokens.next_if_eq(&")").is_some() || {
                    self.tokens.next_if_eq(&")");
                    false
                }
            }
            Some(name) => {
                let name = match self.tokens.next_if_eq(&"WITH") {
                    Some(_) => {
                        format!("{name} WITH {}", self.tokens.next().unwrap_or_default())
                    }
                    None => name.to_owned(),
                };
                allowed.contains(&name)
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(expression: &str) -> bool {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned);
        Expression::new(expression).fits(&allowed)
    }

    #[test]
    fn one_allowed_choice_is_enough() {
        assert!(fits("MIT"));
        assert!(fits("MIT OR GPL-3.0"));
        assert!(fits("Unlicense/MIT"));
        assert!(fits("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
    }

    #[test]
    fn every_part_that_is_needed_must_be_allowed() {
        assert!(fits("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!fits("(MIT OR Apache-2.0) AND OpenSSL"));
        assert!(fits("(GPL-3.0 AND MIT) OR Apache-2.0"));
        assert!(!fits("MIT AND (GPL-3.0 OR LGPL-3.0)"));
    }

    #[test]
    fn an_unknown_missing_or_malformed_licence_does_not_fit() {
        for expression in [
            "Unlicense",
            "GPL-3.0",
            "",
            "MIT MIT",
            "(MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(!fits(expression), "{expression}");
        }
    }

    #[test]
    fn the_list_is_read_from_the_licence_section_only() {
        let policy = concat!(
            "[bans]\nallow = [\"no\"]\n[licenses]\n# why\n",
            "allow = [\n  \"MIT\", # \"not\"\n  \"ISC\",\n]\nx = [\"no\"]"
        );
        assert_eq!(allowed(policy), ["MIT", "ISC"]);
    }

    #[test]
    fn a_dependency_is_named_with_its_version_and_licence() {
        let package = Package {
            name: "a".to_owned(),
            version: "1.2.3".to_owned(),
            manifest: None,
            license: Some("GPL-3.0".to_owned()),
            dependencies: Vec::new(),
        };
        let found = judge(&package, &["MIT".to_owned()]).map(|v| v.what);
        assert_eq!(found.as_deref(), Some("a 1.2.3 has the licence `GPL-3.0`"));
    }
}
