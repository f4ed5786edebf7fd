//! What workers do in closed loops on the wires that have conditions.
//!
//! **Owns:** appends, reads, empty calls and the load. **Does not know:** which client asks whom.
//! **Invariants:** tags are never shared between workers or runs; a read that gives another number of events than stand there
//! ends the run.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;

use crate::{
    closed::Work,
    event::{Batch, Condition, EVENTS_PER_TAG, Selection},
    wire::Connection,
};

/// The condition of a row's appends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guard {
    None,
    /// Nothing new with the worker's own tag since its last append.
    OwnTag,
    /// Nothing of this type behind a position.
    Kind(&'static str, Option<u64>),
}

/// Appends of so many events, each with a tag of the worker's own.
pub(crate) struct Appending {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) name: String,
    pub(crate) events: usize,
    pub(crate) guard: Guard,
    pub(crate) count: u64,
    pub(crate) last: Option<u64>,
}

impl Appending {
    fn next(&self) -> Batch {
        let condition = |on, after| Some(Condition { on, after });
        let (tag, condition) = match self.guard {
            Guard::OwnTag => {
                let own = Selection::Tag(self.name.clone());
                (self.name.clone(), condition(own, self.last))
            }
            guard => {
                let tag = format!("{}-{}", self.name, self.count / EVENTS_PER_TAG);
                let condition = match guard {
                    Guard::Kind(kind, after) => condition(Selection::Kind(kind), after),
                    Guard::None | Guard::OwnTag => None,
                };
                (tag, condition)
            }
        };
        Batch {
            condition,
            ..Batch::new(&tag, self.events)
        }
    }
}

impl Work for Appending {
    fn blocks(&self) -> bool {
        self.connection.blocks()
    }

    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            let batch = self.next();
            self.last = Some(self.connection.append(batch).await?);
            self.count += 1;
            Ok(Some(self.events as u64))
        })
    }
}

/// Calls that do next to nothing.
pub(crate) struct Empty(pub(crate) Arc<dyn Connection>);

impl Work for Empty {
    fn blocks(&self) -> bool {
        self.0.blocks()
    }

    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            self.0.head().await?;
            // No event, but the table shows events per second only where they differ.
            Ok(Some(1))
        })
    }
}

/// The big log: where its events are, and how much of it is written.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) events: u64,
    pub(crate) next: AtomicU64,
}

pub(crate) const LOAD_BATCH: u64 = 100;

impl Load {
    pub(crate) fn tags(&self) -> u64 {
        (self.events / EVENTS_PER_TAG).max(1)
    }

    pub(crate) fn tag(&self, number: u64) -> String {
        format!("account-{}", number % self.tags())
    }
}

/// One of those who write the big log.
pub(crate) struct Loading {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) load: Arc<Load>,
}

impl Work for Loading {
    fn blocks(&self) -> bool {
        self.connection.blocks()
    }

    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            let first = self.load.next.fetch_add(LOAD_BATCH, Ordering::Relaxed);
            let end = (first + LOAD_BATCH).min(self.load.events);
            if first >= end {
                return Ok(None);
            }
            let tags = (first..end).map(|number| self.load.tag(number)).collect();
            self.connection.append(Batch::of(tags)).await?;
            Ok(Some(end - first))
        })
    }
}

/// Reads of one tag after another.
pub(crate) struct ReadingTags {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) load: Arc<Load>,
    /// Differs from reader to reader.
    pub(crate) next: u64,
}

/// A prime far above the square root of how many tags there are: one read after another is somewhere else in the log.
const STRIDE: u64 = 7_919;

impl Work for ReadingTags {
    fn blocks(&self) -> bool {
        self.connection.blocks()
    }

    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            let tag = self.load.tag(self.next);
            self.next += STRIDE;
            let events = self.connection.read(Some(tag)).await?;
            anyhow::ensure!(
                events == EVENTS_PER_TAG,
                "a tag has {events} events, not {EVENTS_PER_TAG}"
            );
            Ok(Some(events))
        })
    }
}

/// One read of the whole log.
pub(crate) struct ReadingAll {
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) at_least: u64,
    pub(crate) done: bool,
}

impl Work for ReadingAll {
    fn blocks(&self) -> bool {
        self.connection.blocks()
    }

    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>> {
        Box::pin(async {
            if self.done {
                return Ok(None);
            }
            self.done = true;
            let (events, expected) = (self.connection.read(None).await?, self.at_least);
            anyhow::ensure!(events >= expected, "{events} of {expected} events");
            Ok(Some(events))
        })
    }
}
