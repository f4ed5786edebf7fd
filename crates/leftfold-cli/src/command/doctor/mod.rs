//! `leftfold doctor`: a check of an installation, before it serves or while it does.
//!
//! **Owns:** the order of the checks, and the exit code. **Does not know:** what any check looks at.
//! **Invariants:** nothing is changed; a check that cannot be made is a finding and ends no other check.
//! **Reading order:** `finding`, `settings`, `machine`, `files`.

mod files;
mod finding;
mod machine;
mod settings;

use std::{env, io::Write, path::Path};

use leftfold_server::Settings;

use self::finding::{Finding, Verdict};
use crate::{cli, exit_code::Exit, open::StoreLocation};

/// Checks the installation that a server with these settings would have.
pub(super) async fn run(
    arguments: &cli::Doctor,
    settings: &Settings,
    mut out: impl Write,
) -> anyhow::Result<Exit> {
    let data = arguments.data.clone();
    let data = data.or_else(|| env::var_os("LEFTFOLD_DATA").map(Into::into));
    let location = data.as_deref().map(StoreLocation::at).transpose()?;
    let findings = findings(settings, arguments.config.as_deref(), location.as_ref()).await;
    for finding in &findings {
        finding.print(&mut out, arguments.json)?;
    }
    out.flush()?;
    let must_act = |finding: &Finding| finding.verdict == Verdict::Problem;
    Ok(match findings.iter().any(must_act) {
        true => Exit::Failed,
        false => Exit::Ok,
    })
}

async fn findings(
    settings: &Settings,
    config: Option<&Path>,
    location: Option<&StoreLocation>,
) -> Vec<Finding> {
    let mut findings = settings::check(settings);
    findings.push(machine::descriptors(settings));
    findings.extend(files::secrets(settings));
    findings.extend(files::certificates(settings));
    findings.extend(files::token_keys(settings).await);
    findings.extend(config.map(files::config));
    match location {
        Some(StoreLocation::Directory(directory)) => {
            let existing = machine::existing(directory);
            findings.push(machine::clock(directory));
            findings.push(machine::disk_space(existing));
            findings.push(machine::sync_rate(existing));
            if directory.is_dir() {
                findings.push(files::directory(directory));
                findings.push(files::store(directory).await);
            } else {
                let found = format!("{} is not there yet", directory.display());
                findings.push(Finding::ok(
                    "store",
                    format!("{found}; `leftfold serve` creates it"),
                ));
            }
        }
        Some(database) => findings.push(files::database(database).await),
        None => findings.push(Finding::warning(
            "store",
            "not named, so disk, clock and files are not checked",
            "give --data STORE, or set LEFTFOLD_DATA",
        )),
    }
    findings
}
