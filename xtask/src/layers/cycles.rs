//! Import cycles between the modules of a crate.
//!
//! **Owns:** what counts as a cycle, and the table of the edges that may close one.
//! **Does not know:** which direction is the right one; that is `modules`.
//! **Invariants:** at each level of the module tree, the modules side by side, each with all below it, import from one
//! another in one direction only; an edge of the table that closes no cycle fails the check, so the table only shrinks.

use std::collections::BTreeSet;

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};

use crate::violation::Violation;

use super::graph::{Edges, Graph};

/// An edge that closes a cycle and stays.
#[derive(Debug)]
pub(crate) struct KnownEdge {
    /// Name of the crate.
    pub(crate) krate: &'static str,
    /// The module that imports.
    pub(crate) from: &'static str,
    /// The module that is imported.
    pub(crate) to: &'static str,
    /// Why the cycle is left.
    pub(crate) reason: &'static str,
}

/// Where the table stands.
const TABLE: &str = "xtask/src/layers/cycles.rs";

/// The edges that may close a cycle.
const KNOWN: &[KnownEdge] = &[
    KnownEdge {
        krate: "leftfold",
        from: "store",
        to: "decide",
        reason: "`Store` is the facade that constructs what holds it, as reqwest's `Client` does its requests",
    },
    KnownEdge {
        krate: "leftfold",
        from: "store",
        to: "event_reader",
        reason: "`Store` is the facade that constructs what holds it, as reqwest's `Client` does its requests",
    },
    KnownEdge {
        krate: "leftfold",
        from: "store",
        to: "follow",
        reason: "`Store` is the facade that constructs what holds it, as reqwest's `Client` does its requests",
    },
    KnownEdge {
        krate: "leftfold",
        from: "store",
        to: "live",
        reason: "`Store` is the facade that constructs what holds it, as reqwest's `Client` does its requests",
    },
    KnownEdge {
        krate: "leftfold",
        from: "store",
        to: "repository",
        reason: "`Store` is the facade that constructs what holds it, as reqwest's `Client` does its requests",
    },
    KnownEdge {
        krate: "leftfold",
        from: "store",
        to: "unit_of_work",
        reason: "`Store` is the facade that constructs what holds it, as reqwest's `Client` does its requests",
    },
    KnownEdge {
        krate: "leftfold",
        from: "repository",
        to: "unit_of_work",
        reason: "a repository makes the references to aggregates that a unit of work takes",
    },
    KnownEdge {
        krate: "leftfold-model",
        from: "error",
        to: "id",
        reason: "the model has one error; it names ids, and parsing an id fails with it",
    },
    KnownEdge {
        krate: "leftfold-store",
        from: "contract",
        to: "backend",
        reason: "a store hands out the back end that exact copies are made of, whose methods return the contract's values",
    },
    KnownEdge {
        krate: "leftfold-server",
        from: "state",
        to: "background",
        reason: "the state of the server holds the handles of its services",
    },
    KnownEdge {
        krate: "leftfold-server",
        from: "connection",
        to: "state",
        reason: "connections are counted in the state of the server",
    },
    KnownEdge {
        krate: "leftfold-server",
        from: "background",
        to: "protocol",
        reason: "health is a gRPC service that runs beside the protocols",
    },
];

/// Whether the table names an edge.
pub(crate) fn is_known(krate: &str, from: &str, to: &str) -> bool {
    KNOWN
        .iter()
        .any(|edge| edge.krate == krate && edge.from == from && edge.to == to)
}

/// Every cycle of a crate that the table does not name, and every edge of the table that closes none.
pub(crate) fn check(krate: &str, graph: &Graph) -> Vec<Violation> {
    check_with(krate, graph, KNOWN)
}

fn check_with(krate: &str, graph: &Graph, known: &[KnownEdge]) -> Vec<Violation> {
    let known: Vec<&KnownEdge> = known.iter().filter(|edge| edge.krate == krate).collect();
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for edges in graph.levels().into_values() {
        for (from, to) in edges_in_cycles(&edges) {
            let is_known = |edge: &&&KnownEdge| edge.from == from && edge.to == to;
            if let Some(edge) = known.iter().find(is_known) {
                used.insert((edge.from, edge.to));
            }
        }
        let mut left = edges.clone();
        left.retain(|(from, to), _| !known.iter().any(|edge| edge.from == from && edge.to == to));
        found.extend(cycles(&left).iter().map(|cycle| violation(krate, cycle)));
    }
    let stale = known
        .iter()
        .filter(|edge| !used.contains(&(edge.from, edge.to)));
    found.extend(stale.map(|edge| Violation {
        path: TABLE.to_owned(),
        line: 1,
        what: format!(
            "{krate}: the entry `{}` -> `{}` closes no cycle ({})",
            edge.from, edge.to, edge.reason
        ),
        why: "an entry that is not needed would let the cycle come back",
        fix: "delete the entry",
    }));
    found
}

/// The edges within each strongly connected component of more than one module.
fn cycles(edges: &Edges) -> Vec<Edges> {
    let graph: DiGraphMap<&str, (), std::hash::RandomState> = edges
        .keys()
        .map(|(from, to)| (from.as_str(), to.as_str()))
        .collect();
    let components = tarjan_scc(&graph)
        .into_iter()
        .filter(|component| component.len() > 1);
    components
        .map(|component| {
            let inside = |name: &String| component.contains(&name.as_str());
            let mut cycle = edges.clone();
            cycle.retain(|(from, to), _| inside(from) && inside(to));
            cycle
        })
        .collect()
}

fn edges_in_cycles(edges: &Edges) -> impl Iterator<Item = (String, String)> {
    cycles(edges).into_iter().flat_map(Edges::into_keys)
}

fn violation(krate: &str, cycle: &Edges) -> Violation {
    let edges: Vec<String> = cycle
        .iter()
        .map(|((from, to), (path, line))| format!("`{from}` -> `{to}` ({path}:{line})"))
        .collect();
    let (path, line) = cycle.values().next().cloned().unwrap_or_default();
    Violation {
        path,
        line,
        what: format!("{krate}: modules import one another: {}", edges.join(", ")),
        why: "modules of a cycle can only be read, tested and changed together",
        fix: "move what both need to a module below them, or pass it in as an argument",
    }
}

#[cfg(test)]
mod tests {
    use crate::source::Source;

    use super::*;

    const ROOT: &str = "crates/a/src/";
    const EDGE: KnownEdge = KnownEdge {
        krate: "a",
        from: "y",
        to: "x",
        reason: "for this test",
    };

    fn found(files: &[(&str, &str)], known: &[KnownEdge]) -> Vec<Violation> {
        let sources: Vec<Source> = files
            .iter()
            .map(|(file, text)| Source::new(format!("{ROOT}{file}"), *text))
            .collect();
        check_with("a", &Graph::new(ROOT, &sources).unwrap(), known)
    }

    #[test]
    fn imports_in_one_direction_are_no_cycle() {
        let files = [
            ("lib.rs", "mod x; mod y;"),
            ("x.rs", "use crate::y::Y;"),
            ("y.rs", "pub struct Y;"),
        ];
        assert!(found(&files, &[]).is_empty());
    }

    #[test]
    fn two_files_that_import_one_another_are_a_cycle_and_both_lines_are_named() {
        let files = [
            ("x.rs", "\nuse crate::y::Y;"),
            ("y.rs", "fn f() -> crate::x::X { super::x::g() }"),
        ];
        let whats: Vec<String> = found(&files, &[]).into_iter().map(|v| v.what).collect();
        let expected = "a: modules import one another: `x` -> `y` (crates/a/src/x.rs:2), \
                        `y` -> `x` (crates/a/src/y.rs:1)";
        assert_eq!(whats, [expected]);
    }

    #[test]
    fn folders_are_taken_whole() {
        let files = [
            ("x/mod.rs", "mod in_x; pub use in_x::X;"),
            ("x/in_x.rs", "use crate::y::Y;"),
            ("y/mod.rs", "mod in_y; mod other; pub use other::Y;"),
            ("y/in_y.rs", "use crate::x::X;"),
            ("y/other.rs", "pub struct Y;"),
        ];
        assert_eq!(found(&files, &[]).len(), 1);
    }

    #[test]
    fn a_folder_that_imports_from_its_parents_file_closes_a_cycle_and_a_file_does_not() {
        let parent = ("x/mod.rs", "mod y; const LIMIT: u8 = y::f();");
        let child = "use super::LIMIT;";
        assert!(found(&[parent, ("x/y.rs", child)], &[]).is_empty());
        let folder = [parent, ("x/y/mod.rs", child), ("x/y/z.rs", "")];
        assert_eq!(found(&folder, &[]).len(), 1);
    }

    #[test]
    fn an_edge_of_the_table_opens_its_cycle_and_is_found_when_it_closes_none() {
        let cycle = [("x.rs", "use crate::y::Y;"), ("y.rs", "use crate::x::X;")];
        assert!(found(&cycle, &[EDGE]).is_empty());
        let stale = found(&[("x.rs", "use crate::y::Y;"), ("y.rs", "")], &[EDGE]);
        assert_eq!(stale.len(), 1);
        assert_eq!(stale.first().unwrap().path, TABLE);
    }

    #[test]
    fn tests_may_close_cycles() {
        let files = [
            ("x.rs", "use crate::y::Y;"),
            (
                "y.rs",
                "#[cfg(test)]\nmod tests {\n    use crate::x::X;\n}\n",
            ),
            ("y/tests.rs", "use crate::x::X;"),
        ];
        assert!(found(&files, &[]).is_empty());
    }
}
