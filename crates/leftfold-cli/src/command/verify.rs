//! `leftfold verify`: whether everything is as it was written.
//!
//! **Owns:** showing what was checked. **Does not know:** how it is checked.
//! **Invariants:** changes nothing; damage is an error that names file and byte.

use std::{io::Write, sync::Arc, time::Duration};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use leftfold_log::disk::{Disk, real::RealDisk};
use serde_json::json;

use super::output;
use crate::{
    cli,
    open::{self, Place, PlaceError},
};

pub(crate) fn run(arguments: &cli::Verify) -> anyhow::Result<()> {
    let Place::Directory(directory) = Place::of(&arguments.data)? else {
        return Err(PlaceError::NeedsFiles.into());
    };
    let directory = directory.as_path();
    open::must_exist(directory)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::at(directory)?);
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
        "{spinner} {pos} events, {per_sec}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let verified = leftfold_log::verify(&disk, &mut |events| bar.set_position(events));
    bar.finish_and_clear();
    let report = verified.with_context(|| format!("verifying {} failed", directory.display()))?;
    let rows = [
        ("segments", report.segments),
        ("events", report.events),
        ("erased", report.erased),
        ("log_bytes", report.log_bytes),
        ("locations_files", report.locations),
        ("index_files", report.indexes),
        ("terms", report.terms),
        ("postings", report.postings),
        ("segments_without_index", report.without_index),
        ("torn_bytes", report.torn_bytes),
    ];
    let mut out = output();
    if arguments.json {
        let object: serde_json::Map<_, _> = rows
            .iter()
            .map(|&(name, value)| (name.to_owned(), json!(value)))
            .collect();
        writeln!(out, "{}", serde_json::Value::Object(object))?;
    } else {
        for (name, value) in rows {
            writeln!(out, "{name:<24} {value:>16}")?;
        }
        writeln!(out, "everything that was read is as it was written")?;
    }
    Ok(out.flush()?)
}
