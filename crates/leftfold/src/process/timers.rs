//! The timers of a process, as the log tells them.
//!
//! **Owns:** [`TimerChanges`] in the metadata of a process's events, their fold, and the ids of timers among those of a
//! consumer. **Does not know:** when timers are looked at.
//! **Invariants:** what is set follows from the events of the process alone; setting a timer once more makes another one, even
//! for an equal time.

use std::{collections::BTreeMap, sync::LazyLock};

use leftfold_model::{EventId, Timestamp};
use leftfold_store::consumers::Timer;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use crate::{Metadata, metadata::derived_id};

/// The key of a reaction's timers in the metadata of its first event.
const KEY: &str = "$timers";
static FINDER_OF_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));

/// What a reaction does with timers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TimerChanges {
    /// When each is due, in microseconds since 1970; `None` for one that is cancelled, or was due.
    timers: BTreeMap<String, Option<u64>>,
}

impl TimerChanges {
    pub(super) fn insert(&mut self, name: String, due: Option<Timestamp>) {
        self.timers.insert(name, due.map(Timestamp::as_micros));
    }

    pub(super) fn due(&self, name: &str) -> Option<Timestamp> {
        let due = self.timers.get(name).copied().flatten();
        due.map(Timestamp::from_micros)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.timers.keys().map(String::as_str)
    }

    /// Puts the changes into metadata.
    pub(super) fn write(&self, mut metadata: Metadata) -> Metadata {
        if !self.timers.is_empty() {
            let timers: serde_json::Map<_, _> = self
                .timers
                .iter()
                .map(|(name, due)| (name.clone(), serde_json::Value::from(*due)))
                .collect();
            metadata.custom.insert(KEY.to_owned(), timers.into());
        }
        metadata
    }
}

/// A timer that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetTimer {
    pub(super) due: Timestamp,
    /// The first event of the reaction that set it.
    pub(super) by: EventId,
}

/// The timers of one process that are set: the fold of the changes in the metadata of its events.
#[derive(Debug, Clone, Default)]
pub(super) struct SetTimers {
    set: BTreeMap<String, SetTimer>,
}

impl SetTimers {
    /// Takes the changes in the metadata of an event.
    pub(super) fn take(&mut self, by: EventId, metadata: &[u8]) {
        // Most events change none.
        if FINDER_OF_KEY.find(metadata).is_none() {
            return;
        }
        let metadata = Metadata::parse(metadata);
        let timers = metadata.custom.get(KEY);
        let Some(timers) = timers.and_then(|timers| timers.as_object()) else {
            return;
        };
        for (name, due) in timers {
            match due.as_u64().map(Timestamp::from_micros) {
                Some(due) => self.set.insert(name.clone(), SetTimer { due, by }),
                None => self.set.remove(name),
            };
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<SetTimer> {
        self.set.get(name).copied()
    }
}

/// What a consumer's timer says of the process it belongs to.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TimerData {
    pub(super) process: String,
    pub(super) timer: String,
    /// The first event of the reaction that set it.
    pub(super) by: String,
}

/// Returns the id of a process's timer among those of its consumer. Each time that a timer is set has an id of its own, so a
/// change of one is never taken for a change of an earlier or a later one.
pub(super) fn timer_id(consumer: &str, process: &str, name: &str, set: SetTimer) -> String {
    let due = set.due.as_micros().to_string();
    derived_id(&["timer", consumer, process, name, &due, &set.by.to_string()]).to_string()
}

/// Returns a process's timer as its consumer keeps it.
pub(super) fn timer(
    consumer: &str,
    process: &str,
    name: &str,
    set: SetTimer,
) -> Result<Timer, serde_json::Error> {
    let data = TimerData {
        process: process.to_owned(),
        timer: name.to_owned(),
        by: set.by.to_string(),
    };
    Ok(Timer {
        id: timer_id(consumer, process, name, set),
        due: set.due,
        data: serde_json::to_vec(&data)?.into(),
    })
}
