//! The clients: how each of them asks what the rows ask.
//!
//! **Owns:** [`Connection`], what a row can ask of a server, and which client asks it.
//! **Does not know:** how answers are timed.
//! **Invariants:** every client is used as its documents show, with its defaults; an error of any of them ends the run.

pub(crate) mod kurrentdb;
pub(crate) mod leftfold;
mod tephra;
mod umadb;

use std::sync::Arc;

use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::event::Batch;

/// Which published client asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Umadb,
    Leftfold,
    /// One request at a time, on a thread of its own.
    TephraBlocking,
    /// Many requests on one connection.
    TephraShared,
}

/// What the rows ask of a server.
pub(crate) trait Connection: Send + Sync + 'static {
    /// Whether answers hold up the thread that waits for them.
    fn blocks(&self) -> bool {
        false
    }
    /// Answers the position of the last event.
    fn append(&self, batch: Batch) -> BoxFuture<'_, anyhow::Result<u64>>;
    /// The newest position; of what these servers answer it is nearest to nothing.
    fn head(&self) -> BoxFuture<'_, anyhow::Result<u64>>;
    /// Reads the events with this tag, or all; answers how many there are.
    fn read(&self, tag: Option<String>) -> BoxFuture<'_, anyhow::Result<u64>>;
    /// Subscribes after a position; yields the times that the events carry.
    fn follow(&self, after: u64) -> Moments<'_>;
}

/// A subscription, once it is there.
pub(crate) type Moments<'a> =
    BoxFuture<'a, anyhow::Result<BoxStream<'static, anyhow::Result<u64>>>>;

impl Wire {
    pub(crate) async fn connect(self, port: u16) -> anyhow::Result<Arc<dyn Connection>> {
        Ok(match self {
            Self::Umadb => Arc::new(umadb::connect(port).await?),
            Self::Leftfold => Arc::new(leftfold::connect(port).await?),
            Self::TephraBlocking => Arc::new(tephra::connect_blocking(port)?),
            Self::TephraShared => Arc::new(tephra::connect_shared(port).await?),
        })
    }

    /// So many callers with a connection each, or all on one.
    pub(crate) async fn callers(
        self,
        port: u16,
        callers: u64,
        shared: bool,
    ) -> anyhow::Result<Vec<Arc<dyn Connection>>> {
        let mut connections = vec![self.connect(port).await?];
        for _ in 1..callers {
            let next = match connections.first() {
                Some(first) if shared => Arc::clone(first),
                _ => self.connect(port).await?,
            };
            connections.push(next);
        }
        Ok(connections)
    }
}
