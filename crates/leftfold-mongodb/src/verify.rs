//! Checking every commit of the log.
//!
//! **Owns:** [`Report`] and the checks. **Does not know:** how to repair.
//! **Invariants:** changes nothing; ends at the first commit that is not as it was written, and names it.

use leftfold_model::Position;
use mongodb::bson::doc;

use crate::{
    document::{Identity, to_u64},
    error::Failure,
    log::{Log, Order},
    payload::Payloads,
    read::with_retry,
};

/// The result of a verification that found no damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Number of commits.
    pub commits: u64,
    /// Number of events, without erased ones.
    pub events: u64,
    /// Number of erased events, whose positions stay taken.
    pub erased: u64,
    /// Position of the newest event.
    pub head: Position,
}

/// Reads all commits, oldest first, and checks that each is whole and follows the one before it.
pub(crate) async fn verify(log: &Log) -> Result<Report, Failure> {
    let payloads = Payloads::new(log.clone());
    let mut report = Report::default();
    let mut previous: Option<Identity> = None;
    let (mut number, mut last) = (0, 0);
    loop {
        let filter = doc! { "last": { "$gt": last } };
        let page = with_retry(log, || log.page(filter.clone(), Order::OldestFirst)).await?;
        for commit in page.commits {
            let damaged =
                |what: &str| Failure::Damaged(format!("commit {}: {what}", commit.number));
            if commit.number != number + 1 {
                return Err(damaged(&format!("it follows commit {number}")));
            }
            if commit.first != last + 1 {
                return Err(damaged(&format!(
                    "its first position {} follows {last}",
                    commit.first
                )));
            }
            if commit.previous != previous {
                return Err(damaged(
                    "it was made behind another commit than the one before it",
                ));
            }
            if commit.keys != commit.derive_keys()? {
                return Err(damaged("its keys are not those of its events"));
            }
            (number, last) = (commit.number, commit.last);
            previous = Some(commit.identity);
            report.commits += 1;
            for event in commit.events {
                if event.erased {
                    report.erased += 1;
                    continue;
                }
                report.events += 1;
                if event.payload.is_some() {
                    let position = event.position;
                    let restored = with_retry(log, || payloads.restore(event.clone())).await?;
                    restored.ok_or_else(|| {
                        Failure::Damaged(format!(
                            "event at position {position}: its payload is missing"
                        ))
                    })?;
                }
            }
        }
        report.head = Position::new(to_u64(last)?);
        if !page.more {
            return Ok(report);
        }
    }
}
