//! Following the log: what is stored, then what is committed, with one cursor.
//!
//! **Owns:** [`Follower`]. **Does not know:** threads and runtimes; it offers a wake-up and a question.
//! **Invariants:** no event is skipped or repeated: a follower's whole state is the position it has delivered up to;
//! a slow follower costs nothing while it does not ask.

use std::sync::Arc;

use event_listener::{EventListener, Listener};
use leftfold_model::{Position, Query, Read, RecordedEvent, Scope};

use super::{Cursor, ReadError, Views};

/// A subscription: a place in the log, and what to deliver from there on.
#[derive(Debug)]
pub struct Follower {
    views: Arc<dyn Views>,
    scope: Scope,
    query: Query,
    through: Position,
    cursor: Option<Cursor>,
}

/// What a follower delivers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Events, oldest first; empty if only the checkpoint moved.
    pub events: Vec<RecordedEvent>,
    /// Everything selected up to here has been delivered.
    pub through: Position,
    /// Whether that was the head of the log.
    pub caught_up: bool,
}

impl Follower {
    pub(crate) fn new(views: Arc<dyn Views>, scope: Scope, query: Query, after: Position) -> Self {
        Self {
            views,
            scope,
            query,
            through: after,
            cursor: None,
        }
    }

    /// What has been committed and not delivered; `None` if there is nothing at the moment.
    ///
    /// # Errors
    /// [`ReadError::Storage`]; the follower then stays where it is.
    pub fn try_next(&mut self) -> Result<Option<Delivered>, ReadError> {
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
                Cursor::over(view, &read)?
            }
        };
        let events = cursor.next_batch()?.unwrap_or_default();
        match events.last() {
            Some(last) if !cursor.is_done() && last.position < cursor.head() => {
                self.through = last.position;
                self.cursor = Some(cursor);
                Ok(Some(Delivered {
                    events,
                    through: self.through,
                    caught_up: false,
                }))
            }
            _ => {
                self.through = cursor.head();
                let caught_up = self.views.view().head == self.through;
                Ok(Some(Delivered {
                    events,
                    through: self.through,
                    caught_up,
                }))
            }
        }
    }

    /// What comes next; blocks until there is something. `None`: the log was closed.
    ///
    /// # Errors
    /// As [`Self::try_next`].
    pub fn wait_next(&mut self) -> Result<Option<Delivered>, ReadError> {
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

    /// Resolves when there may be something new. Make it **before** asking [`Self::try_next`], then nothing is missed.
    #[must_use]
    pub fn listen(&self) -> EventListener {
        self.views.listen()
    }

    /// Whether the log was closed: what was not delivered by then will not come.
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
