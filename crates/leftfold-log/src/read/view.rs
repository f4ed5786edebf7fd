//! The state of the log that a reader sees.
//!
//! **Owns:** [`View`] and [`ViewSource`]. **Does not know:** how views are built.
//! **Invariants:** a view never changes; it names durable events only, and every file it needs.

use std::{fmt::Debug, sync::Arc};

use leftfold_model::Position;

use super::CommitNotifier;
use crate::{index::IndexSnapshot, segment::Segments};

/// The state of the log at one moment, for readers.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Position of the newest durable event.
    pub(crate) head: Position,
    pub(crate) segments: Segments,
    pub(crate) sources: IndexSnapshot,
}

/// The source of views for readers, with notification of newer ones.
pub(crate) trait ViewSource: Debug + Send + Sync {
    /// Returns the newest view.
    fn view(&self) -> Arc<View>;
    /// Returns the notifier of newer views, and of the end of the log.
    fn notifier(&self) -> &Arc<CommitNotifier>;
    /// Whether the log was closed.
    fn is_closed(&self) -> bool;
}
