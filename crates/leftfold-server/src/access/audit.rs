//! The audit: who was let do what, and who was not.
//!
//! **Owns:** [`AuditLog`], which writes entries as events of the stream `$audit` and as log lines; [`verify_audit`].
//! **Does not know:** what the actions do.
//! **Invariants:** each entry holds the hash of the one before it, so that one that is changed or missing is found; denials
//! are bounded in number, and how many were left out stands in the next entry; nothing waits for the audit.
//!
//! A chain shows what was changed inside it. Who can write the store's files can make a new chain: keep the newest hash
//! elsewhere to find that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use leftfold_model::{
    Append, EventType, ExpectedRevision, NewEvent, Read, RecordedEvent, Revision, StreamName,
};
use leftfold_store::{AppendError, EventStore, ReadError};
use ring::digest;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::{
    api_key::hex, failure_limit::FailureLimiter, principal::Principal, record::AUDIT_STREAM,
};
use crate::clock;

/// The type of an entry.
const ENTRY_TYPE: &str = "$audited";
/// Entries that wait to be written, at most.
const QUEUE: usize = 1024;
/// Entries of one append.
const BATCH: usize = 128;
/// Denials that each principal or address may have written at once, and the time for one more.
const DENIALS: (u32, Duration) = (20, Duration::from_secs(10));
/// Attempts to write a batch; then it is logged as lost.
const ATTEMPTS: u32 = 8;
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What was done, or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditAction {
    /// A request was rejected for its credentials.
    Authenticate,
    /// A request was rejected for the rights of its principal.
    Access,
    /// A user was created, changed or deleted.
    ChangeUser,
    /// A key was made or revoked.
    ChangeKey,
    /// The server was operated.
    Operate,
}

/// An entry of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditEntry {
    /// When.
    pub time: Timestamp,
    /// Who, or which address.
    pub principal: String,
    /// What.
    pub action: AuditAction,
    /// On what, in words.
    pub subject: String,
    /// Whether it was allowed.
    pub allowed: bool,
    /// Denials since the entry before that were not written.
    pub left_out: u64,
    /// The hash of the entry before; empty in the first one.
    pub previous: String,
    /// The SHA-256 of this entry without this member, in hexadecimal.
    #[serde(default)]
    pub hash: String,
}

impl AuditEntry {
    fn hash_of(&self) -> String {
        let unsealed = Self {
            hash: String::new(),
            ..self.clone()
        };
        let text = serde_json::to_vec(&unsealed).unwrap_or_default();
        hex(digest::digest(&digest::SHA256, &text).as_ref())
    }

    fn sealed(mut self, previous: &str) -> Self {
        previous.clone_into(&mut self.previous);
        self.hash = self.hash_of();
        self
    }
}

/// What waits to be written.
#[derive(Debug)]
enum Queued {
    Entry(Box<AuditEntry>),
    /// Answered when all before it were written.
    Flush(oneshot::Sender<()>),
}

/// Where entries go.
#[derive(Debug)]
pub(crate) struct AuditLog {
    entries: mpsc::Sender<Queued>,
    denials: FailureLimiter<String>,
    left_out: AtomicU64,
    _writes: AbortOnDropHandle<()>,
}

impl AuditLog {
    pub(super) fn start(store: Arc<dyn EventStore>) -> Self {
        let (entries, queue) = mpsc::channel(QUEUE);
        Self {
            entries,
            denials: FailureLimiter::new(DENIALS.0, DENIALS.1),
            left_out: AtomicU64::new(0),
            _writes: AbortOnDropHandle::new(tokio::spawn(write(store, queue))),
        }
    }

    /// Waits until what was noted is written.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.entries.send(Queued::Flush(done)).await.is_ok() {
            // Dropped without an answer, it is over as well.
            let _ = written.await;
        }
    }

    /// Notes what a principal did.
    pub(crate) fn allowed(&self, principal: &Principal, action: AuditAction, subject: &str) {
        self.note(principal.to_string(), action, subject, true);
    }

    /// Notes what a principal was not let do.
    pub(crate) fn denied(&self, principal: &Principal, reason: &str) {
        self.note_denial(principal.to_string(), AuditAction::Access, reason);
    }

    /// Notes that a request was rejected.
    pub(crate) fn rejected(&self, address: std::net::SocketAddr, reason: &str) {
        self.note_denial(address.ip().to_string(), AuditAction::Authenticate, reason);
    }

    fn note_denial(&self, who: String, action: AuditAction, reason: &str) {
        if self.denials.wait(&who).is_some() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.denials.note(&who);
        self.note(who, action, reason, false);
    }

    fn note(&self, principal: String, action: AuditAction, subject: &str, allowed: bool) {
        tracing::info!(target: "audit", %principal, ?action, %subject, allowed, "audited");
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        let entry = AuditEntry {
            time: Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH),
            principal,
            action,
            subject: subject.to_owned(),
            allowed,
            left_out,
            previous: String::new(),
            hash: String::new(),
        };
        if self
            .entries
            .try_send(Queued::Entry(Box::new(entry)))
            .is_err()
        {
            self.left_out.fetch_add(left_out + 1, Ordering::Relaxed);
            tracing::error!("audit entry not written: too many wait");
        }
    }
}

/// Writes entries in batches, until no more can come.
async fn write(store: Arc<dyn EventStore>, mut queue: mpsc::Receiver<Queued>) {
    let mut end = None;
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let (mut entries, mut flushes) = (Vec::new(), Vec::new());
        for queued in batch.drain(..) {
            match queued {
                Queued::Entry(entry) => entries.push(*entry),
                Queued::Flush(done) => flushes.push(done),
            }
        }
        if !entries.is_empty() {
            write_batch(&*store, &mut end, &entries).await;
        }
        for done in flushes {
            // It may have waited long enough.
            let _ = done.send(());
        }
    }
}

async fn write_batch(store: &dyn EventStore, end: &mut Option<ChainEnd>, entries: &[AuditEntry]) {
    let mut pause = Duration::from_millis(50);
    for attempt in 1..=ATTEMPTS {
        match append(store, end, entries).await {
            Ok(()) => return,
            Err(error) if attempt == ATTEMPTS => {
                tracing::error!(error, entries = entries.len(), "audit entries lost");
            }
            Err(_) => {
                // Another server may have written, so the end is looked up again.
                *end = None;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// The end of the chain: the revision of its last entry, and the hash of that.
type ChainEnd = (ExpectedRevision, String);

async fn append(
    store: &dyn EventStore,
    end: &mut Option<ChainEnd>,
    entries: &[AuditEntry],
) -> Result<(), String> {
    let (expected, mut previous) = match end.take() {
        Some(end) => end,
        None => chain_end(store).await.map_err(|error| error.to_string())?,
    };
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries {
        let sealed = entry.clone().sealed(&previous);
        previous.clone_from(&sealed.hash);
        let data = serde_json::to_vec(&sealed).map_err(|error| error.to_string())?;
        let name = EventType::new(ENTRY_TYPE).map_err(|error| error.to_string())?;
        events.push(NewEvent::json(name, data));
    }
    let stream = StreamName::new(AUDIT_STREAM).map_err(|error| error.to_string())?;
    let append = Append::to(stream, expected, events).map_err(|error| error.to_string())?;
    let appended = store.append(append).await;
    let appended = appended.map_err(|error: AppendError| error.to_string())?;
    if let Some((_, last)) = appended.streams.first() {
        *end = Some((ExpectedRevision::Exact(*last), previous));
    }
    Ok(())
}

async fn chain_end(store: &dyn EventStore) -> Result<ChainEnd, ReadError> {
    let stream = StreamName::new(AUDIT_STREAM).map_err(|error| ReadError::Invalid {
        reason: error.to_string(),
    })?;
    let mut batches = store.read(Read::stream(stream.clone()).backwards().limit(1));
    let newest = batches.try_next().await?;
    let newest = newest.and_then(|batch| batch.events.into_iter().next());
    Ok(match newest {
        None => {
            // Metadata may hide all entries, and the chain begins again behind them.
            let last = store.stream_state(stream).await?.last;
            let expected = last.map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact);
            (expected, String::new())
        }
        Some(event) => {
            let entry = serde_json::from_slice::<AuditEntry>(&event.data);
            let hash = entry.map(|entry| entry.hash).unwrap_or_default();
            (ExpectedRevision::Exact(event.revision), hash)
        }
    })
}

/// Where the chain of the audit is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditProblem {
    /// An event is no entry.
    #[error("audit entry unreadable: revision {revision}")]
    Unreadable {
        /// Its revision.
        revision: Revision,
    },
    /// An entry is not what was written.
    #[error("audit entry changed: revision {revision}")]
    Changed {
        /// Its revision.
        revision: Revision,
    },
    /// The entry before one is not the one that was there when it was written.
    #[error("audit chain broken before revision {revision}")]
    Broken {
        /// The revision of the entry after the break.
        revision: Revision,
    },
}

/// Reads the entry in an event and checks it against the hash of the one before; `None`: the first that is looked at.
///
/// # Errors
/// [`AuditProblem`]: the entry was changed, or the one before it was.
pub fn verify_audit(
    event: &RecordedEvent,
    previous: Option<&str>,
) -> Result<AuditEntry, AuditProblem> {
    let revision = event.revision;
    let entry: AuditEntry =
        serde_json::from_slice(&event.data).map_err(|_| AuditProblem::Unreadable { revision })?;
    if entry.hash_of() != entry.hash {
        return Err(AuditProblem::Changed { revision });
    }
    let begins = revision == Revision::new(0) && entry.previous.is_empty();
    match previous {
        Some(previous) if previous != entry.previous => Err(AuditProblem::Broken { revision }),
        None if !begins && revision == Revision::new(0) => Err(AuditProblem::Broken { revision }),
        _ => Ok(entry),
    }
}

#[cfg(test)]
mod tests {
    use leftfold_store::{Delete, MemoryStore, StreamMetadata};

    use super::*;

    #[tokio::test]
    async fn entries_are_written_behind_entries_that_are_hidden() {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        let stream = || StreamName::new(AUDIT_STREAM).unwrap();
        let hidden = StreamMetadata::default().with_truncate_before(Revision::new(100));
        let hidden = hidden.append_for(&stream(), ExpectedRevision::Any).unwrap();
        let deletion = Delete::stream(stream(), ExpectedRevision::Any);
        for hide in 0..3 {
            match hide {
                0 => {}
                1 => drop(store.append(hidden.clone()).await.unwrap()),
                _ => drop(store.delete(deletion.clone()).await.unwrap()),
            }
            let audit = AuditLog::start(Arc::clone(&store));
            audit.allowed(&Principal::Anonymous, AuditAction::Operate, "a scavenge");
            audit.flush().await;
            let state = store.stream_state(stream()).await.unwrap();
            assert_eq!(state.last, Some(Revision::new(hide)));
        }
    }
}
