//! A listing of streams in the embedded store.
//!
//! **Owns:** [`Listing`]. **Does not know:** which streams are deleted.
//! **Invariants:** a step holds one batch of at most [`BATCH_STREAMS`] streams.

use leftfold_log as log;
use leftfold_log::{Log, Streams};

use super::rebuilding;
use crate::{ListStreams, ReadError, StreamInfo};

/// Streams of a batch: each costs the read of one event.
const BATCH_STREAMS: usize = 256;

/// A walk through the names of the log's streams.
pub(super) struct Listing {
    pub(super) log: Log,
    pub(super) list: ListStreams,
    pub(super) remaining: u64,
    pub(super) walk: Option<Streams>,
}

impl Listing {
    pub(super) fn step(mut self) -> Result<Option<(Vec<StreamInfo>, Self)>, ReadError> {
        let log = self.log.clone();
        let entries = rebuilding(&log, || {
            // A walk that failed stands where a damaged file was.
            self.next_batch().inspect_err(|_| self.walk = None)
        })?;
        let Some(last) = entries.last() else {
            return Ok(None);
        };
        self.list.after = Some(last.stream.clone());
        self.remaining -= entries.len() as u64;
        let info = |entry: log::StreamInfo| StreamInfo {
            stream: entry.stream,
            events: entry.events,
            revision: entry.revision,
            position: entry.position,
            time: entry.time,
        };
        Ok(Some((entries.into_iter().map(info).collect(), self)))
    }

    fn next_batch(&mut self) -> Result<Vec<log::StreamInfo>, log::ReadError> {
        let wanted = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(BATCH_STREAMS);
        let walk = match &mut self.walk {
            Some(walk) => walk,
            None => {
                let list = &self.list;
                let walk = self.log.streams(&list.prefix, list.after.as_ref())?;
                self.walk.insert(walk)
            }
        };
        walk.next_batch(wanted)
    }
}
