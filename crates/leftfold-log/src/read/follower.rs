//! Following the log: stored events, then new ones as they are committed.
//!
//! **Owns:** [`Follower`]. **Does not know:** threads and runtimes; it offers listeners and polls.
//! **Invariants:** no event is skipped or repeated: a follower's whole state is the position it has delivered up to;
//! a slow follower costs nothing while it does not poll.

use std::sync::Arc;

use event_listener::{EventListener, Listener};
use leftfold_model::{Position, Query, Read, RecordedEvent, Scope};

use super::{Cursor, ReadError, ViewSource, notify::TermWaiter};
use crate::{index::Term, nowait};

/// Approximate bytes of a delivery. There may be thousands of slow followers.
const BATCH_BYTES: u64 = 128 * 1024;
/// Lag in events, with more to deliver than fits into one delivery, up to which a follower counts as caught
/// up: at most a few deliveries in a row are read in place.
const NEAR: u64 = 256;
/// Maximum terms by which a follower is woken. With more, every commit wakes it, because they cost more than they save.
const TERMS_MAX: usize = 256;

/// A subscription: a position in the log, and the selection to deliver after it.
#[derive(Debug)]
pub struct Follower {
    views: Arc<dyn ViewSource>,
    scope: Scope,
    query: Query,
    /// Each selected event has at least one of these; `None` if there is no such list.
    terms: Option<Vec<Term>>,
    through: Position,
    cursor: Option<Cursor>,
    watch: Option<TermWaiter>,
}

/// A batch of a follower's events, with its checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Events, oldest first; empty if only the checkpoint moved.
    pub events: Vec<RecordedEvent>,
    /// Everything selected up to here has been delivered.
    pub through: Position,
    /// Whether that was the head of the log.
    pub caught_up: bool,
}

impl Follower {
    pub(crate) fn new(
        views: Arc<dyn ViewSource>,
        scope: Scope,
        query: Query,
        after: Position,
    ) -> Self {
        Self {
            views,
            terms: terms(&scope, &query),
            scope,
            query,
            through: after,
            cursor: None,
            watch: None,
        }
    }

    /// Moves to the head if the index in memory shows that nothing up to it is selected. `None` if it does not, or
    /// the follower is there. Never blocks for long.
    pub fn skip_unmatched(&mut self) -> Option<Delivery> {
        let terms = self.terms.as_ref()?;
        let view = self.views.view();
        if self.cursor.is_some() || self.is_at(view.head) {
            return None;
        }
        let tail = view.sources.tails.last()?;
        let newer = |term: &Term| {
            let newest = tail.newest(term.as_bytes());
            newest.is_some_and(|newest| newest > self.through)
        };
        if tail.first() > self.through.next() || terms.iter().any(newer) {
            return None;
        }
        self.through = view.head;
        Some(Delivery {
            events: Vec::new(),
            through: view.head,
            caught_up: true,
        })
    }

    /// Returns whether nothing was committed after the last delivery: then [`Self::try_next`] has nothing.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.is_at(self.views.view().head)
    }

    fn is_at(&self, head: Position) -> bool {
        self.cursor.is_none() && head <= self.through
    }

    /// Returns committed events that were not delivered; `None` if there are none now.
    ///
    /// # Errors
    /// [`ReadError::Storage`]; the follower then stays where it is.
    pub fn try_next(&mut self) -> Result<Option<Delivery>, ReadError> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => {
                let view = self.views.view();
                if view.head <= self.through {
                    return Ok(None);
                }
                let read = Read {
                    scope: self.scope.clone(),
                    query: self.query.clone(),
                    ..Read::all().from_position(self.through.next())
                };
                Cursor::over(view, &read)?.with_batch_bytes(BATCH_BYTES)
            }
        };
        let events = cursor.next_batch()?.unwrap_or_default();
        match events.last() {
            Some(last) if !cursor.is_done() && last.position < cursor.head() => {
                self.through = last.position;
                self.cursor = Some(cursor);
                Ok(Some(Delivery {
                    events,
                    through: self.through,
                    caught_up: false,
                }))
            }
            _ => {
                self.through = cursor.head();
                let caught_up = self.views.view().head == self.through;
                Ok(Some(Delivery {
                    events,
                    through: self.through,
                    caught_up,
                }))
            }
        }
    }

    /// Returns what [`Self::try_next`] returns, unless that would have to wait for the disk or take long, as it does with much to
    /// catch up with. Then it returns `None`, and the follower stays where it is.
    ///
    /// # Errors
    /// As [`Self::try_next`].
    pub fn try_next_nowait(&mut self) -> Option<Result<Option<Delivery>, ReadError>> {
        let through = self.through;
        let behind = self.views.view().head.get().saturating_sub(through.get());
        if self.cursor.is_some() && behind > NEAR {
            return None;
        }
        let delivered = nowait::try_nowait(|| self.try_next());
        if delivered.is_none() {
            // What was made of a read that was given up counts for nothing.
            self.through = through;
            self.cursor = None;
        }
        delivered
    }

    /// Returns the next delivery, and blocks until there is one; `None` if the log was closed.
    ///
    /// # Errors
    /// As [`Self::try_next`].
    pub fn wait_next(&mut self) -> Result<Option<Delivery>, ReadError> {
        loop {
            let wake = self.listen();
            if let Some(delivered) = self.try_next()? {
                return Ok(Some(delivered));
            }
            if self.is_closed() {
                return Ok(None);
            }
            wake.wait();
        }
    }

    /// Returns a listener that resolves when there may be new events. Create it **before** a call of [`Self::try_next`], so that
    /// none is missed.
    #[must_use]
    pub fn listen(&self) -> EventListener {
        self.views.notifier().listen()
    }

    /// Returns a listener that commits of selected events notify; other commits need not. So followers that wait cost such
    /// commits nothing. To move the checkpoint over them, call [`Self::skip_unmatched`] now and then.
    #[must_use]
    pub fn listen_for_matches(&mut self) -> EventListener {
        let Some(terms) = &self.terms else {
            return self.listen();
        };
        let notifier = self.views.notifier();
        let watch = self
            .watch
            .get_or_insert_with(|| notifier.watch(terms.iter().map(Term::as_bytes)));
        watch.listen()
    }

    /// Returns whether the log was closed: undelivered events will not come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.views.is_closed()
    }

    /// Everything selected up to here has been delivered.
    #[must_use]
    pub fn through(&self) -> Position {
        self.through
    }
}

/// Terms of which each event that is selected has at least one; `None` if there is no such list.
fn terms(scope: &Scope, query: &Query) -> Option<Vec<Term>> {
    match (scope, query) {
        (Scope::Stream(stream), _) => Some(vec![Term::stream(stream)]),
        (Scope::Category(category), _) => Some(vec![Term::category(category.as_str())]),
        (_, Query::All) => None,
        (_, Query::Items(items)) => {
            let mut terms = Vec::new();
            for item in items {
                match (item.tag_list().first(), item.type_list()) {
                    (Some(tag), _) => terms.push(Term::tag(tag)),
                    (None, []) => return None,
                    (None, types) => terms.extend(types.iter().map(Term::event_type)),
                }
            }
            Some(terms).filter(|terms| (1..=TERMS_MAX).contains(&terms.len()))
        }
    }
}
