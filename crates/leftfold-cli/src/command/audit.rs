//! `leftfold audit`: the audit of a server, printed and checked.
//!
//! **Owns:** reading the entries in order, and what is printed of them. **Does not know:** how they are chained.
//! **Invariants:** every entry is checked before it is printed; the first that is not as it was written ends the command.

use std::io::Write;

use futures_util::TryStreamExt;
use leftfold_model::{Read, StreamName};
use leftfold_server::access::verify_audit;

use super::output;
use crate::{cli, display, open};

pub(crate) async fn run(arguments: cli::Audit) -> anyhow::Result<()> {
    let store = open::existing(&arguments.data).await?;
    let mut out = output();
    let mut batches = store.read(Read::stream(StreamName::new("$audit")?));
    let (mut newest, mut entries) = (None::<String>, 0_u64);
    while let Some(batch) = batches.try_next().await? {
        for event in &batch.events {
            let entry = verify_audit(event, newest.as_deref())?;
            entries += 1;
            if !arguments.verify {
                if arguments.json {
                    writeln!(out, "{}", display::json(&serde_json::to_string(&entry)?))?;
                } else {
                    let decision = if entry.allowed { "allowed" } else { "denied " };
                    let line = format!(
                        "{}  {decision}  {}  {}",
                        entry.time, entry.principal, entry.subject
                    );
                    writeln!(out, "{}", display::escape(&line))?;
                }
            }
            newest = Some(entry.hash);
        }
    }
    if arguments.verify {
        let hash = newest.as_deref().unwrap_or("none");
        writeln!(
            out,
            "{entries} entries, each as it was written; hash of the newest: {hash}"
        )?;
    }
    drop(batches);
    store.close().await?;
    Ok(out.flush()?)
}
