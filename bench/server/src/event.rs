//! The events of all rows: 128 bytes, one type, one tag.
//!
//! **Owns:** payloads, the moment that stands in them, names of types and tags. **Does not know:** clients, servers.
//! **Invariants:** a payload begins with the time at which its append began, so that a subscriber can compute the delay
//! without knowing the writer.

use std::{sync::OnceLock, time::Instant};

pub(crate) const PAYLOAD_BYTES: usize = 128;
/// The type of all events.
pub(crate) const KIND: &str = "MoneyDeposited";
/// The type of the first event of the big log, and of no other.
pub(crate) const KIND_ONCE: &str = "BankFounded";
/// The type of no event.
pub(crate) const KIND_NEVER: &str = "BankClosed";
/// Events of each tag, as of an entity that lives for a while.
pub(crate) const EVENTS_PER_TAG: u64 = 20;

/// What one append writes, and under which condition.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) kind: &'static str,
    /// The tags of the events, one each.
    pub(crate) tags: Vec<String>,
    pub(crate) condition: Option<Condition>,
    /// When the append was begun.
    pub(crate) moment: u64,
}

/// Refuses the append if one of these stands behind `after`; without that, if there is one at all.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) on: Selection,
    pub(crate) after: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) enum Selection {
    Tag(String),
    Kind(&'static str),
}

impl Batch {
    /// So many events with the same tag.
    pub(crate) fn new(tag: &str, events: usize) -> Self {
        Self::of(vec![tag.to_owned(); events])
    }

    pub(crate) fn of(tags: Vec<String>) -> Self {
        Self {
            kind: KIND,
            tags,
            condition: None,
            moment: moment(),
        }
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        payload(self.moment)
    }
}

/// Nanoseconds since this program first asked.
pub(crate) fn moment() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let elapsed = BEGUN.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn payload(moment: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAYLOAD_BYTES);
    bytes.extend(moment.to_le_bytes());
    // Differs from event to event, so that no server gains by compressing.
    let mut state = moment | 1;
    while bytes.len() < PAYLOAD_BYTES {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        bytes.extend((state ^ (state >> 29)).to_le_bytes());
    }
    bytes
}

/// When the append of this event was begun.
pub(crate) fn moment_of(payload: &[u8]) -> anyhow::Result<u64> {
    let first = payload.first_chunk::<8>();
    let first = first.ok_or_else(|| anyhow::anyhow!("an event that is not ours"))?;
    Ok(u64::from_le_bytes(*first))
}
