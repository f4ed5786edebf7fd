//! The table and the JSON.
//!
//! **Owns:** medians, formatting. **Does not know:** how figures came to be.
//! **Invariants:** a cell is the median of its column over the runs of one store; the longest stall is the median of the
//! runs' longest; every outcome is in the JSON, so that nothing is only in a median.

use std::path::Path;

use serde::Serialize;

use crate::{
    engine::Kind,
    machine,
    task::{Outcome, Task},
};

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    task: Task,
    outcomes: Vec<(Kind, Vec<Outcome>)>,
}

/// A table that grows while it is measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    facts: Vec<(&'static str, String)>,
    rows: Vec<Row>,
}

fn median(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> f64 {
    let mut values: Vec<f64> = outcomes.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    match values.get(values.len() / 2) {
        Some(&upper) if values.len() % 2 == 1 => upper,
        Some(&upper) => (values.get(values.len() / 2 - 1).copied().unwrap_or(upper) + upper) / 2.0,
        None => 0.0,
    }
}

fn rate(outcome: &Outcome) -> f64 {
    outcome.operations as f64 / outcome.seconds
}

fn grouped(value: f64) -> String {
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

fn millis(micros: f64) -> String {
    match micros / 1_000.0 {
        ms if ms < 1.0 => format!("{ms:.3}"),
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms => format!("{ms:.1}"),
    }
}

impl Report {
    pub(crate) fn begin(directory: &Path) -> Self {
        let report = Self {
            facts: machine::facts(directory),
            rows: Vec::new(),
        };
        for (name, value) in &report.facts {
            println!("{name}: {value}");
        }
        println!();
        let columns = "| row | store | per second | events/s | of first | p50 ms | p99 ms | p99.9 ms | longest ms | cores \
                       | opened MiB | peak MiB | disk B/event |";
        println!("{columns}");
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        report
    }

    pub(crate) fn row(&mut self, name: &str, task: &Task, outcomes: Vec<(Kind, Vec<Outcome>)>) {
        let opening = matches!(task, Task::Open { .. });
        let speed = |outcomes: &[Outcome]| {
            if opening {
                1e6 / median(outcomes, |outcome| outcome.p50)
            } else {
                median(outcomes, rate)
            }
        };
        let first = outcomes
            .first()
            .map_or(0.0, |(_, outcomes)| speed(outcomes));
        for (kind, outcomes) in &outcomes {
            let of = |field: fn(&Outcome) -> f64| median(outcomes, field);
            let events = of(|outcome| outcome.events as f64 / outcome.seconds);
            let disk = of(|outcome| {
                if outcome.events > 0 {
                    outcome.disk_bytes as f64 / outcome.events as f64
                } else {
                    0.0
                }
            });
            let loaded = matches!(task, Task::Load { .. } | Task::Scan);
            println!(
                "| {name} | {} | {} | {} | {:.2} | {} | {} | {} | {} | {:.2} | {:.0} | {:.0} | {} |",
                kind.name(),
                if opening {
                    "-".to_owned()
                } else {
                    grouped(speed(outcomes))
                },
                if opening {
                    "-".to_owned()
                } else {
                    grouped(events)
                },
                speed(outcomes) / first,
                millis(of(|outcome| outcome.p50)),
                millis(of(|outcome| outcome.p99)),
                millis(of(|outcome| outcome.p999)),
                millis(of(|outcome| outcome.longest)),
                of(|outcome| outcome.cpu_seconds / outcome.seconds),
                of(|outcome| outcome.opened_mib),
                of(|outcome| outcome.peak_mib),
                if loaded {
                    format!("{disk:.1}")
                } else {
                    "-".to_owned()
                },
            );
        }
        self.rows.push(Row {
            name: name.to_owned(),
            task: task.clone(),
            outcomes,
        });
    }

    pub(crate) fn finish(self, json: Option<&Path>) -> anyhow::Result<()> {
        if let Some(path) = json {
            std::fs::write(path, serde_json::to_vec_pretty(&self)?)?;
        }
        Ok(())
    }
}
