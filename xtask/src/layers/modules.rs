//! Which module of a crate may import from which.
//!
//! **Owns:** the layers of each crate. **Does not know:** crates; they are in `crates`.
//! **Invariants:** a module imports only from layers below its own, so the modules can be read, and tested, from the
//! ground up; a module that is in no layer fails the check, and so does a layer that names no module; tests may look
//! anywhere.

use std::collections::BTreeSet;

use crate::violation::Violation;

use super::{cycles, graph::Graph};

/// The modules in one module, from the top.
#[derive(Debug)]
struct Layers {
    krate: &'static str,
    /// The module they are in; empty for the crate's root.
    parent: &'static str,
    layers: &'static [&'static [&'static str]],
}

/// Fewest modules of a crate that need a table.
const MODULES_MIN: usize = 3;

const TABLES: &[Layers] = &[
    Layers {
        krate: "leftfold-model",
        parent: "",
        layers: &[
            &["append", "read"],
            &["event", "query"],
            &["name"],
            &["id", "position", "time"],
            &["error"],
            &["limits"],
        ],
    },
    Layers {
        krate: "leftfold-log",
        parent: "",
        layers: &[
            &["simulated"],                     // the engine over threads of a scheduler
            &["engine"],                        // threads, channels, the public interface
            &["salvage", "scavenge", "verify"], // whole-log procedures on what recovery understands
            &["recover"],                       // makes an open log of files
            &["append", "read", "maintenance"], // one operation each
            &["segment", "index"],              // structures that fill a file
            &["record"],                        // bytes to structs and back
            &["cache"],                         // blocks that were read and checked
            &["nowait"],                        // whether this thread may wait for the disk
            &["atomic_file"],                   // how several structures write a file
            &["error"], // names the file that failed, so it stands on the disk's names
            &["disk"],
            &["limits", "clock", "planted", "sync"],
        ],
    },
    Layers {
        krate: "leftfold-store",
        parent: "",
        layers: &[
            &["conformance"],        // every store against the contract
            &["embedded", "memory"], // the stores
            &["restore"],            // exact copies from backend to backend
            &["retention"],          // the lifecycle of streams, over any backend
            &["backend", "tenant"],  // what a kind of storage implements; the store of one tenant
            &["contract"],           // what callers use
            &["consumers", "database_transaction", "keys", "snapshot_file"],
            &["snapshots", "unknown_outcomes"],
            &["error", "clock", "full_disk", "newer_tables"],
        ],
    },
    Layers {
        krate: "leftfold-mongodb",
        parent: "",
        layers: &[
            &["store", "testing"],
            &["backend", "verify"],
            &["append", "consumers", "erase", "listing", "snapshots"], // one question or collection each
            &["entries"],
            &["tail"],
            &["read"],
            &["payload", "query"],
            &["log"],
            &["document"],
            &["keys"],
            &["options"],
            &["error"],
        ],
    },
    Layers {
        krate: "leftfold-postgres",
        parent: "",
        layers: &[
            &["store", "testing"],
            &["backend", "verify"],
            &["append", "consumers", "erase", "keys", "snapshots"], // one question or table each
            &["subscribe"],
            &["listing"],
            &["read"],
            &["schema", "pool"],
            &["session"],
            &["options", "statements", "tls"],
            &["error", "name", "value"],
        ],
    },
    Layers {
        krate: "leftfold",
        parent: "",
        layers: &[
            &["inspect", "testing"],
            &["outgoing", "process", "project"], // what reacts to events
            &["follow"],                         // listeners
            &["causes", "event_reader", "history", "unit_of_work"],
            &["decide", "forget", "repository"], // the kinds of commands
            &["snapshot", "state_cache"],
            &["command"], // the engine of commands
            &["store"],   // the facade; what it constructs stands above it
            &["causation", "observe", "stream_queue"],
            &["execute"],
            &["load"],
            &["aggregate", "boundary"],
            &["event"],
            &["metadata", "shape"],
            &["erasure"],
            &["error", "clock", "panic_message", "reason"],
        ],
    },
    Layers {
        krate: "leftfold-derive",
        parent: "",
        layers: &[
            &["event", "snapshot"],
            &["personal", "transparent"],
            &["attributes", "shape"],
            &["serde_attributes"],
        ],
    },
    Layers {
        krate: "leftfold-client",
        parent: "",
        layers: &[
            &["access", "client"],
            &[
                "append",
                "consumers",
                "list",
                "read",
                "snapshots",
                "subscribe",
            ], // one method of the contract each
            &["session", "call"],
            &["channel", "connection"],
            &["queued_append"],
            &["backoff", "status"],
            &["address", "decode", "encode"],
            &["error", "options"],
            &["credentials"],
        ],
    },
    Layers {
        krate: "leftfold-server",
        parent: "",
        layers: &[
            &["server"],
            &["multiplex"],
            &["protocol"],
            &["background"],
            &["call"],
            &["state"],
            &["error"],
            &["access"],
            &["connection"],
            &["groups"],
            &["unsupported_stream"],
            &["system_index"],
            &[
                "blocking_threads",
                "clock",
                "credential_stream",
                "event_filter",
                "json",
                "link",
                "settings",
            ],
        ],
    },
    Layers {
        krate: "leftfold-server",
        parent: "protocol",
        layers: &[
            &["http_api", "kurrent", "native", "umadb"], // none knows another
            &[
                "client_id",
                "decoded_append",
                "group_access",
                "grpc_routes",
                "interner",
                "wire_format",
                "methods",
            ],
            &["message_shapes"],
            &["message_scanner"],
        ],
    },
    Layers {
        krate: "leftfold-cli",
        parent: "",
        layers: &[
            &["command"],
            &["reference"],
            &["display", "exit_code", "signals"],
            &["open"],
            &["cli"],
            &["allocator", "group_args", "runtime", "setting_args"],
        ],
    },
    Layers {
        krate: "leftfold-sim",
        parent: "",
        layers: &[
            &["scenario"],
            &["run", "threads"], // histories without threads, and with them
            &["disk", "oracle"],
            &["rng"],
        ],
    },
    Layers {
        krate: "xtask",
        parent: "",
        layers: &[
            &["ci"],
            &["layers", "licences", "tidy"],
            &["metadata", "source"],
            &["tree"],
            &["violation"],
        ],
    },
];

/// Every import of a crate that does not go down, and every module and layer without the other.
pub(crate) fn check(krate: &str, manifest: &str, graph: &Graph) -> Vec<Violation> {
    let tables: Vec<&Layers> = TABLES.iter().filter(|table| table.krate == krate).collect();
    let modules = graph.children(&[]).len();
    let has_own = tables.iter().any(|table| table.parent.is_empty());
    let mut found = Vec::new();
    if modules >= MODULES_MIN && !has_own {
        found.push(violation(
            manifest.to_owned(),
            1,
            format!("the crate {krate} has {modules} modules and no table of layers"),
        ));
    }
    found.extend(
        tables
            .into_iter()
            .flat_map(|table| check_table(table, graph)),
    );
    found
}

fn violation(path: String, line: usize, what: String) -> Violation {
    Violation {
        path,
        line,
        what,
        why: "imports go down only, so that a module can be understood without those above it",
        fix: "move the shared part to a lower module, or pass it in as an argument; the layers are in \
              xtask/src/layers/modules.rs",
    }
}

fn check_table(table: &Layers, graph: &Graph) -> Vec<Violation> {
    let parent: Vec<String> = match table.parent {
        "" => Vec::new(),
        path => path.split("::").map(str::to_owned).collect(),
    };
    let full = |name: &str| match table.parent {
        "" => name.to_owned(),
        parent => format!("{parent}::{name}"),
    };
    let layer = |module: &str| {
        let holds = |layer: &&[&str]| layer.iter().any(|name| full(name) == module);
        table.layers.iter().position(holds)
    };
    let krate = table.krate;
    let here = |what| violation("xtask/src/layers/modules.rs".to_owned(), 1, what);
    let modules = graph.children(&parent);
    let named: BTreeSet<String> = table
        .layers
        .iter()
        .copied()
        .flatten()
        .map(|name| full(name))
        .collect();
    let mut found = Vec::new();
    found.extend(
        modules
            .difference(&named)
            .map(|module| here(format!("{krate}: the module `{module}` is in no layer"))),
    );
    found.extend(named.difference(&modules).map(|module| {
        here(format!(
            "{krate}: the layers name `{module}`, which is no module"
        ))
    }));
    for ((from, to), (path, line)) in graph.levels().remove(&parent).unwrap_or_default() {
        let goes_down = match (layer(&from), layer(&to)) {
            (Some(own), Some(other)) => other > own,
            // Without a layer: found above.
            _ => true,
        };
        if !goes_down && !cycles::is_known(krate, &from, &to) {
            let what = format!("{krate}: `{from}` must not import from `{to}`");
            found.push(violation(path, line, what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::source::Source;

    use super::*;

    const ROOT: &str = "crates/a/src/";
    const TABLE: Layers = Layers {
        krate: "a",
        parent: "",
        layers: &[&["top"], &["left", "right"], &["ground"]],
    };

    /// What is found when one file of a crate that keeps its layers has another text.
    fn found(file: &str, text: &str) -> Vec<String> {
        let mut files = vec![
            ("lib.rs", "mod top; pub use top::Log;"),
            ("top/mod.rs", ""),
            ("left.rs", "use crate::ground::Ground;"),
            ("right/mod.rs", ""),
            ("ground.rs", ""),
        ];
        files.retain(|(name, _)| *name != file);
        files.push((file, text));
        let sources: Vec<Source> = files
            .iter()
            .map(|(name, text)| Source::new(format!("{ROOT}{name}"), *text))
            .collect();
        let graph = Graph::new(ROOT, &sources).unwrap();
        check_table(&TABLE, &graph)
            .into_iter()
            .map(|v| format!("{}: {}", v.line, v.what))
            .collect()
    }

    #[test]
    fn imports_that_go_down_pass() {
        let text = "use crate::{left::Left, ground::{self, G}}; use super::right;";
        assert!(found("top/mod.rs", text).is_empty());
        assert!(found("top/part.rs", "use super::super::right::R; use super::Own;").is_empty());
    }

    #[test]
    fn imports_that_go_up_or_sideways_are_found_with_their_line() {
        assert_eq!(
            found("ground.rs", "\nuse crate::left::Left;"),
            ["2: a: `ground` must not import from `left`"]
        );
        assert_eq!(found("left.rs", "fn f() { crate::right::g(); }").len(), 1);
        assert_eq!(found("right/mod.rs", "use super::top::Core;").len(), 1);
        assert_eq!(
            found("right/deep.rs", "use super::super::top::Core;").len(),
            1
        );
    }

    #[test]
    fn a_path_in_what_a_macro_is_given_is_an_import() {
        assert_eq!(
            found("ground.rs", "f!(a, { crate::left::LIMIT });").len(),
            1
        );
    }

    #[test]
    fn a_name_re_exported_at_the_root_counts_as_its_module() {
        assert_eq!(
            found("ground.rs", "use crate::Log;"),
            ["1: a: `ground` must not import from `top`"]
        );
    }

    #[test]
    fn tests_may_look_anywhere() {
        let text = "#[cfg(test)]\nmod tests {\n    use crate::top::Core;\n}\n";
        assert!(found("ground.rs", text).is_empty());
        assert!(found("right/tests.rs", "use crate::top::Core;").is_empty());
    }

    #[test]
    fn a_module_without_a_layer_and_a_layer_without_a_module_are_found() {
        assert_eq!(
            found("attic/mod.rs", ""),
            ["1: a: the module `attic` is in no layer"]
        );
        let none = Graph {
            files: Vec::new(),
            imports: Vec::new(),
        };
        assert_eq!(check_table(&TABLE, &none).len(), 4);
    }

    #[test]
    fn a_crate_of_several_modules_needs_a_table() {
        let sources: Vec<Source> = ["x", "y", "z"]
            .map(|name| Source::new(format!("{ROOT}{name}.rs"), ""))
            .to_vec();
        let graph = Graph::new(ROOT, &sources).unwrap();
        assert_eq!(check("a", "crates/a/Cargo.toml", &graph).len(), 1);
    }
}
