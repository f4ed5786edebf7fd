//! The server's store without the guard of a principal, which no protocol may use.
//!
//! **Owns:** the places that may, each with its reason. **Does not know:** what the guard decides.
//! **Invariants:** an exception that is not used any more fails the check, so that the list stays true.

use crate::{
    source::{Source, find_word, line_at},
    violation::Violation,
};

/// Where handlers of requests are.
const PROTOCOLS: &str = "crates/leftfold-server/src/protocol/";
/// What gives the store to any code, with all rights.
const ACCESSOR: &str = "unguarded_store";

/// The files below [`PROTOCOLS`] that use the store without its guard, and why each must.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "group_access.rs",
    "definitions of groups are system events, which consumers may not read; it has checked the right to consume before",
)];

/// Every use of the store without its guard by a protocol, and every exception that is none.
pub(crate) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources {
        let Some(file) = source.path.strip_prefix(PROTOCOLS) else {
            continue;
        };
        let uses: Vec<usize> = find_word(&source.code, ACCESSOR)
            .map(|offset| line_at(&source.code, offset))
            .filter(|line| !source.is_test_line(*line))
            .collect();
        let is_exception = EXCEPTIONS.iter().any(|(excepted, _)| *excepted == file);
        match (is_exception, uses.as_slice()) {
            (false, lines) => found.extend(lines.iter().map(|line| Violation {
                path: source.path.clone(),
                line: *line,
                what: format!("`{ACCESSOR}` in a protocol"),
                why: "a handler that has the store without its guard gives a caller what it may not have",
                fix: "use `ServerState::store`, or name the file in xtask/src/layers/unguarded_store.rs with the reason",
            })),
            (true, []) => found.push(Violation {
                path: source.path.clone(),
                line: 1,
                what: format!("no `{ACCESSOR}`, though the file is excepted"),
                why: "an exception that is not needed lets one in that is not looked at",
                fix: "remove the file from xtask/src/layers/unguarded_store.rs",
            }),
            (true, _) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const USE: &str = "fn f(shared: &ServerState) {\n    shared.unguarded_store().head();\n}\n";

    fn found(file: &str, text: &str) -> Vec<usize> {
        let source = Source::new(format!("{PROTOCOLS}{file}"), text);
        check(&[source])
            .iter()
            .map(|violation| violation.line)
            .collect()
    }

    #[test]
    fn a_protocol_that_goes_past_the_guard_is_named() {
        assert_eq!(found("umadb/read.rs", USE), [2]);
        assert_eq!(found("http_api/mod.rs", USE), [2]);
        assert!(found("umadb/read.rs", "// unguarded_store is for others\n").is_empty());
        assert!(found("umadb/read.rs", "fn f() { shared.store().head(); }\n").is_empty());
    }

    #[test]
    fn an_exception_is_one_as_long_as_it_is_used() {
        for (file, reason) in EXCEPTIONS {
            assert!(!reason.is_empty(), "{file}");
            assert!(found(file, USE).is_empty());
            assert_eq!(found(file, "fn f() {}\n"), [1]);
        }
    }

    #[test]
    fn the_server_itself_and_tests_may_use_it() {
        let elsewhere = Source::new("crates/leftfold-server/src/background/health.rs", USE);
        assert!(check(&[elsewhere]).is_empty());
        let test = format!("#[cfg(test)]\nmod tests {{\n{USE}}}\n");
        assert!(found("umadb/read.rs", &test).is_empty());
    }
}
