//! The stores under measurement, behind one small trait.
//!
//! **Owns:** [`Engine`] and what an append of the load looks like. **Does not know:** clocks and threads.
//! **Invariants:** every engine is driven through its own public interface, as its own documents show it, with its own
//! defaults; what an engine has no word for (streams, revisions) it maps to the nearest thing it has.

mod leftfold;
mod raw;
mod redb;
mod sqlite;
mod tephra;

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Which store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Leftfold,
    Tephra,
    Redb,
    Sqlite,
    /// Bare writes and syncs: no store, the limit of any.
    Raw,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Leftfold => "leftfold",
            Self::Tephra => "tephra",
            Self::Redb => "redb",
            Self::Sqlite => "sqlite",
            Self::Raw => "raw",
        }
    }
}

/// What an append depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Condition {
    /// Nothing.
    #[default]
    None,
    /// No event with the writer's own tag since the writer's last append.
    OwnTag,
    /// No event with a tag that never was before: uniqueness.
    FreshTag,
    /// No event of a type that did happen, but not since the writer's last append.
    OldType,
    /// The stream's exact revision; a peer without streams uses the condition on the writer's own tag.
    Revision,
}

/// What an append of the load looks like.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Events.
    pub(crate) batch: usize,
    /// Bytes of an event's payload.
    pub(crate) payload: usize,
    pub(crate) condition: Condition,
    /// Tags of an event that no other event has.
    pub(crate) fresh_tags: usize,
    /// Whether every append goes to one of a million streams; otherwise each writer has its own.
    pub(crate) many_streams: bool,
}

/// Streams of the rows with many.
pub(crate) const MANY_STREAMS: u64 = 1_000_000;
/// The type of an event that happened once, at the front of the log.
pub(crate) const OLD_TYPE: &str = "OnceUponATime";
/// The type of most events.
pub(crate) const COMMON_TYPE: &str = "DepositMade";
/// The type of one event in ten thousand of a loaded log.
pub(crate) const RARE_TYPE: &str = "AccountClosed";

/// One writer's place in the load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) number: u64,
    /// How many appends it has made.
    pub(crate) appends: u64,
    /// Position of the last event it appended.
    pub(crate) last: u64,
    /// Random state, from the number alone.
    pub(crate) random: u64,
}

impl Writer {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            random: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            ..Self::default()
        }
    }

    /// The next pseudo-random number (xorshift64*; Vigna, 2016).
    pub(crate) fn chance(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// An event of a loaded log: its account tells its stream and tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    pub(crate) account: u64,
    pub(crate) event_type: &'static str,
}

/// A store under measurement.
pub(crate) trait Engine: Send + Sync {
    /// Appends durably, as `shape` says. `Ok` means that it survives a power cut.
    fn append(&self, shape: &Shape, writer: &mut Writer) -> anyhow::Result<()>;
    /// Appends events of many accounts durably, in one transaction.
    fn load(&self, events: &[Loaded], payload: usize) -> anyhow::Result<()>;
    /// Reads every event in order; gives their number and the bytes of their payloads.
    fn scan(&self) -> anyhow::Result<(u64, u64)>;
    /// Reads the events with the tag of this account; gives their number.
    fn read_tag(&self, account: u64) -> anyhow::Result<u64>;
    /// Reads the stream of this account, or its tag where there are no streams.
    fn read_stream(&self, account: u64) -> anyhow::Result<u64> {
        self.read_tag(account)
    }
    /// Reads the events of a type, all or those with the tag of an account.
    fn read_type(&self, event_type: &str, account: Option<u64>) -> anyhow::Result<u64>;
    /// Calls `seen` with the first payload bytes of every event that is committed from now on, until it says stop.
    fn follow(&self, seen: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<()>;
    /// Stops cleanly.
    fn close(self: Box<Self>) -> anyhow::Result<()>;
}

/// Opens a store, making it if need be.
pub(crate) fn open(kind: Kind, directory: &Path) -> anyhow::Result<Box<dyn Engine>> {
    Ok(match kind {
        Kind::Leftfold => Box::new(leftfold::Leftfold::open(directory)?),
        Kind::Tephra => Box::new(tephra::Tephra::open(directory)?),
        Kind::Redb => Box::new(redb::Redb::open(directory)?),
        Kind::Raw => Box::new(raw::Raw::open(directory)?),
        Kind::Sqlite => Box::new(sqlite::Sqlite::open(directory)?),
    })
}

/// A payload: JSON of this many bytes, with the time of its making in front (for delivery).
pub(crate) fn payload(bytes: usize, stamp: u64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(bytes);
    payload.extend_from_slice(b"{\"at\":");
    let mut digits = [b'0'; 20];
    let mut rest = stamp;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    payload.extend_from_slice(&digits);
    payload.extend_from_slice(b",\"note\":\"");
    payload.resize(bytes.saturating_sub(2), b'x');
    payload.extend_from_slice(b"\"}");
    payload
}

/// The stamp that [`payload`] put in front.
pub(crate) fn stamp(payload: &[u8]) -> u64 {
    let digits = payload
        .get(6..26)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
