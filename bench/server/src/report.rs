//! The table.
//!
//! **Owns:** its columns and how figures look. **Does not know:** how they came to be.
//! **Invariants:** a row is printed as soon as it is measured; Leftfold's line comes first and has the ratio.

use std::{collections::HashMap, path::Path};

use crate::{machine, outcome::Outcome, server::Kind};

const COLUMNS: &str = "| row | server | per second | events/s | leftfold / peer | of empty calls | p50 ms | p99 ms \
                       | server cores | client cores | resident MiB | peak MiB |";

/// A wire, how many callers there are, and whether they have one connection together.
pub(crate) type Callers = (&'static str, u64, bool);

#[derive(Debug)]
pub(crate) struct Report {
    /// Empty calls per second of a server.
    empty: HashMap<(Callers, Kind), f64>,
}

impl Report {
    pub(crate) fn begin(directory: &Path) -> Self {
        for (name, value) in machine::facts(directory) {
            println!("{name}: {value}");
        }
        println!("\n{COLUMNS}");
        println!("|{}", "---|".repeat(COLUMNS.matches('|').count() - 1));
        Self {
            empty: HashMap::new(),
        }
    }

    /// Remembers what other rows with these callers are compared with.
    pub(crate) fn note_empty(&mut self, callers: Callers, sides: &[(Kind, Outcome)]) {
        for (kind, outcome) in sides {
            self.empty
                .insert((callers, *kind), outcome.operations_per_second);
        }
    }

    /// Prints a row; `of_empty` says with which empty calls to compare it.
    pub(crate) fn row(&self, name: &str, sides: &[(Kind, Outcome)], of_empty: Option<Callers>) {
        for (index, (kind, outcome)) in sides.iter().enumerate() {
            let speed = outcome.operations_per_second;
            let peer = sides.get(1).filter(|_| index == 0);
            let peer = peer.map(|(_, peer)| speed / peer.operations_per_second);
            let empty = of_empty.and_then(|callers| self.empty.get(&(callers, *kind)));
            println!(
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {:.2} | {:.2} | {:.0} | {:.0} |",
                kind.name(),
                grouped(speed),
                events(outcome),
                share(peer),
                share(empty.map(|empty| speed / empty)),
                millis(outcome.p50_ms),
                millis(outcome.p99_ms),
                outcome.server_cores,
                outcome.client_cores,
                outcome.resident_mib,
                outcome.peak_mib,
            );
        }
    }
}

fn events(outcome: &Outcome) -> String {
    let (events, operations) = (outcome.events_per_second, outcome.operations_per_second);
    if (events - operations).abs() < 1e-6 * operations {
        "=".to_owned()
    } else {
        grouped(events)
    }
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn grouped(value: f64) -> String {
    if value < 100.0 {
        let places = if value < 10.0 { 2 } else { 1 };
        return format!("{value:.places$}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn millis(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}
