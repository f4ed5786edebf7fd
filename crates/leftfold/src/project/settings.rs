//! How a projection is run.
//!
//! **Owns:** [`Project`], [`CatchUp`] and their defaults. **Does not know:** how it is carried out.
//! **Invariants:** every batch, pause and duration has a bound.

use std::{fmt, sync::Arc, time::Duration};

use leftfold_model::Position;

use super::projection::Projection;
use crate::{Backoff, Store};

/// How far a version is that catches up with the log, for a bar on a terminal or a line in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatchUp {
    /// Everything up to here is in the view, or parked.
    pub position: Position,
    /// The end of the log when it was last looked up.
    pub head: Position,
    /// Whether the version has caught up. This is said once, at the end.
    pub done: bool,
}

/// What is called while a version catches up.
pub(super) type OnCatchUp = Arc<dyn Fn(CatchUp) + Send + Sync>;

/// A projection and how it is to be run; made by [`Store::project`].
#[must_use = "nothing is projected before `spawn`"]
pub struct Project<P: Projection> {
    pub(super) store: Store,
    pub(super) projection: Arc<P>,
    pub(super) view: Arc<P::View>,
    pub(super) settings: Settings,
}

/// See [`Project`].
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) backoff: Backoff,
    pub(super) timeout: Duration,
    pub(super) batch: usize,
    #[cfg(feature = "sqlx-postgres")]
    pub(super) inline_budget: Duration,
    pub(super) park: bool,
    pub(super) stop_at_parked_keys: usize,
    pub(super) pause_at_parked_events: usize,
    pub(super) on_catch_up: Option<OnCatchUp>,
}

impl<P: Projection> fmt::Debug for Project<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Project")
            .field("projection", &P::NAME)
            .field("version", &P::VERSION)
            .finish_non_exhaustive()
    }
}

impl<P: Projection> Project<P> {
    pub(crate) fn new(store: Store, projection: P, view: P::View) -> Self {
        let settings = Settings {
            backoff: Backoff::default(),
            timeout: Duration::from_secs(30),
            batch: 512,
            #[cfg(feature = "sqlx-postgres")]
            inline_budget: Duration::from_secs(2),
            park: false,
            stop_at_parked_keys: 100,
            pause_at_parked_events: 100_000,
            on_catch_up: None,
        };
        Self {
            store,
            projection: Arc::new(projection),
            view: Arc::new(view),
            settings,
        }
    }

    /// Tries a failed event again so often and after such pauses.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Ends the projection with [`ProjectionError::Failed`](crate::ProjectionError::Failed) when all attempts of an event
    /// failed; this is so unless said.
    pub fn stop_on_failure(mut self) -> Self {
        self.settings.park = false;
        self
    }

    /// Parks an event whose attempts all failed, with what follows of its key. Parked events are tried again whenever the
    /// projection is spawned, as after a deploy.
    pub fn park_on_failure(mut self) -> Self {
        self.settings.park = true;
        self
    }

    /// Ends the projection when so many keys are parked and one more fails; 100 unless said.
    pub fn stop_at_parked_keys(mut self, keys: usize) -> Self {
        self.settings.stop_at_parked_keys = keys;
        self
    }

    /// Reads no more of the log while about so many events are parked, those that wait behind others included; 100,000 unless
    /// said.
    pub fn pause_at_parked_events(mut self, events: usize) -> Self {
        self.settings.pause_at_parked_events = events.max(1);
        self
    }

    /// Drops an attempt that takes longer than this and counts it as failed; 30 seconds unless said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Writes up to so many events in one transaction where that many are there; 512 unless said, 1 to 10,000.
    pub fn batch(mut self, events: usize) -> Self {
        self.settings.batch = events.clamp(1, 10_000);
        self
    }

    /// Refuses an append that takes longer than this with its views, if the projection is inline. Default: 2 seconds, at least
    /// 10 ms. Meanwhile all other appends that write the view wait.
    #[cfg(feature = "sqlx-postgres")]
    pub fn inline_budget(mut self, budget: Duration) -> Self {
        self.settings.inline_budget = budget.max(Duration::from_millis(10));
        self
    }

    /// Calls this while the version catches up with the log, at most ten times a second, and once when it has.
    pub fn on_catch_up(mut self, call: impl Fn(CatchUp) + Send + Sync + 'static) -> Self {
        self.settings.on_catch_up = Some(Arc::new(call));
        self
    }
}
