//! Listing streams.
//!
//! **Owns:** [`Streams`]: a listing in progress. **Does not know:** what streams mean.
//! **Invariants:** each stream comes once, in the byte order of names; memory does not grow with their number.

use std::sync::Arc;

use leftfold_model::{Position, Revision, StreamName, Timestamp};

use super::{ReadError, View};
use crate::{
    error::StorageError,
    index::{Listed, Listing},
};

/// One stream of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// Its name.
    pub stream: StreamName,
    /// How many events were appended to it, those that were erased since included: the revision of its last one, and one.
    pub events: u64,
    /// The revision of its last event.
    pub revision: Revision,
    /// The position of its last event.
    pub position: Position,
    /// When its last event was recorded.
    pub time: Timestamp,
}

/// A listing in progress.
#[derive(Debug)]
pub struct Streams {
    view: Arc<View>,
    listing: Listing,
}

impl Streams {
    pub(crate) fn over(
        view: Arc<View>,
        prefix: &str,
        after: Option<&StreamName>,
    ) -> Result<Self, ReadError> {
        let after = after.map(StreamName::as_str);
        let listing = Listing::of(&view.sources, prefix, after, view.head)?;
        Ok(Self { view, listing })
    }

    /// The next `count` streams, at least one, or as many as there are; empty only at the end.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    /// # Cost
    /// One read of an event per stream, for its time.
    pub fn next_batch(&mut self, count: usize) -> Result<Vec<StreamInfo>, ReadError> {
        let mut streams = Vec::new();
        while streams.len() < count.max(1)
            && let Some(listed) = self.listing.next()?
        {
            streams.push(self.entry(listed)?);
        }
        Ok(streams)
    }

    fn entry(&self, listed: Listed) -> Result<StreamInfo, StorageError> {
        let last = self.view.segments.event(listed.last)?;
        let last = last.filter(|event| event.stream.as_str().as_bytes() == listed.name);
        let Some(last) = last else {
            let name = self.view.segments.name_at(listed.last);
            let what = format!(
                "the index says that event {} is of another stream",
                listed.last
            );
            return Err(StorageError::corrupt(&name, 0, what));
        };
        Ok(StreamInfo {
            stream: last.stream,
            events: listed.events,
            revision: last.revision,
            position: last.position,
            time: last.time,
        })
    }
}
