//! `leftfold stats`: counts and sizes.
//!
//! **Owns:** the output. **Does not know:** how the store counts.
//! **Invariants:** the JSON output and the text output have the same figures.

use std::{borrow::Cow, io::Write};

use serde_json::{Map, Value};

use super::output;
use crate::{cli, open};

pub(crate) async fn run(arguments: cli::Stats) -> anyhow::Result<()> {
    let store = open::existing(&arguments.data).await?;
    let stats = store.stats().await?;
    let mut rows: Vec<(Cow<'static, str>, String)> = vec![
        ("events".into(), stats.events.to_string()),
        ("head".into(), stats.head.to_string()),
    ];
    rows.extend(stats.details);
    let mut out = output();
    if arguments.json {
        let number = |text: String| text.parse::<u64>().map_or(Value::String(text), Value::from);
        let object: Map<_, _> = rows
            .into_iter()
            .map(|(name, value)| (name.into_owned(), number(value)))
            .collect();
        writeln!(out, "{}", Value::Object(object))?;
    } else {
        for (name, value) in rows {
            writeln!(out, "{name:<20} {value:>16}")?;
        }
    }
    Ok(out.flush()?)
}
