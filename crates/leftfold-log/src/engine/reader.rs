//! The public way to read a log.
//!
//! **Owns:** [`Reader`]. **Does not know:** who appends, or which threads run.
//! **Invariants:** every read begins at the newest published view; a reader takes no lock of the engine.

use std::sync::Arc;

use leftfold_model::{CurrentRevision, Position, Query, Read, Revision, Scope, StreamName};

use super::{LogStats, shared::EngineState};
use crate::{
    index::Term,
    nowait,
    read::{Cursor, FirstBatch, Follower, ReadError, Streams, ViewSource},
};

/// Reads a log. Cheap to clone; every clone sees the newest commits.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<EngineState>,
}

impl Reader {
    /// Begins a read of the log as it is now.
    ///
    /// # Errors
    /// [`ReadError`] if the request contradicts itself or the index cannot be read.
    pub fn read(&self, read: &Read) -> Result<Cursor, ReadError> {
        Cursor::over(self.shared.view(), read)
    }

    /// Begins a read and returns its first events (at most 64 and 64 KiB; `None` if there are none), unless that would have
    /// to wait for the disk or take long. Then it returns `None`: call [`Self::read`] where waiting does
    /// no harm. For threads of an async runtime; takes well under a millisecond.
    ///
    /// # Errors
    /// As [`Self::read`] and [`Cursor::next_batch`].
    pub fn read_nowait(&self, read: &Read) -> Option<Result<FirstBatch, ReadError>> {
        nowait::try_nowait(|| {
            let mut cursor = self.read(read)?;
            let events = cursor.next_batch()?;
            Ok((cursor, events))
        })
    }

    /// Follows the log after the position `after`: stored events, then new ones.
    #[must_use]
    pub fn follow(&self, scope: Scope, query: Query, after: Position) -> Follower {
        Follower::new(
            Arc::clone(&self.shared) as Arc<dyn ViewSource>,
            scope,
            query,
            after,
        )
    }

    /// Returns the position of the newest durable event.
    #[must_use]
    pub fn head(&self) -> Position {
        self.shared.view().head
    }

    /// Returns the revision of a stream's newest durable event. Reads no event.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn revision(&self, stream: &StreamName) -> Result<CurrentRevision, ReadError> {
        let view = self.shared.view();
        let events = view
            .sources
            .stream_events(&Term::stream(stream), view.head)?;
        Ok(CurrentRevision(events.checked_sub(1).map(Revision::new)))
    }

    /// Returns what [`Self::revision`] returns, or `None` if that would have to wait for the disk.
    ///
    /// # Errors
    /// As [`Self::revision`].
    pub fn revision_nowait(
        &self,
        stream: &StreamName,
    ) -> Option<Result<CurrentRevision, ReadError>> {
        nowait::try_nowait(|| self.revision(stream))
    }

    /// Lists the streams whose names begin with `prefix` and come after `after`, in the byte order of names.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn streams(&self, prefix: &str, after: Option<&StreamName>) -> Result<Streams, ReadError> {
        Streams::over(self.shared.view(), prefix, after)
    }

    /// Returns the current sizes and counts of the log.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.shared.stats()
    }
}
