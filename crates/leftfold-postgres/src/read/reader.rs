//! A read as a stream of pages.
//!
//! **Owns:** the progress of a read, and prefetching the next page while the caller processes the current one.
//! **Does not know:** SQL.
//! **Invariants:** all pages see the log up to the head that the first page found. At most one page is prefetched. Dropping
//! a read stops its prefetch.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{ConflictToken, Direction, Position, Read, ReadFrom, Scope};
use leftfold_store::{ReadBatch, ReadError};
use tokio::task::JoinHandle;

use super::{
    page::{Page, fetch},
    request::{Bounds, PageRequest},
};
use crate::{pool::Pool, value::to_bigint};

/// Maximum number of events of the first page. Most streams have fewer.
const FIRST_PAGE: i64 = 256;
/// Maximum number of events of a later page.
const PAGE: i64 = 2_048;

/// Starts a read at its first poll.
pub(crate) fn read(
    pool: Arc<Pool>,
    read: Read,
) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
    let reader = Reader {
        pool,
        stage: Stage::Start(read),
    };
    Box::pin(stream::try_unfold(reader, Reader::step))
}

struct Reader {
    pool: Arc<Pool>,
    stage: Stage,
}

enum Stage {
    Start(Read),
    /// The next page is requested when the caller polls.
    Request(Progress),
    /// The next page is being fetched.
    Prefetching(Prefetch, Progress),
    Done,
}

/// The progress of a read.
#[derive(Clone)]
struct Progress {
    request: PageRequest,
    head: Position,
    remaining: u64,
}

/// A page being fetched by a task, which is aborted on drop.
struct Prefetch(JoinHandle<Result<Page, ReadError>>);

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Prefetch {
    async fn page(mut self) -> Result<Page, ReadError> {
        let unavailable = |cause| ReadError::Unavailable {
            cause: Arc::new(cause),
        };
        (&mut self.0).await.map_err(unavailable)?
    }
}

impl Reader {
    async fn step(mut self) -> Result<Option<(ReadBatch, Self)>, ReadError> {
        let (page, progress, first) = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Start(read) => {
                let mut progress = Progress::of(&read)?;
                let page = fetch(&self.pool, &progress.request).await?;
                progress.head = page.head.map(|head| head.position).unwrap_or_default();
                (page, progress, true)
            }
            Stage::Request(progress) => {
                (fetch(&self.pool, &progress.request).await?, progress, false)
            }
            Stage::Prefetching(prefetch, progress) => (prefetch.page().await?, progress, false),
            Stage::Done => return Ok(None),
        };
        let token = ConflictToken::from(progress.head);
        let (events, next) = progress.advance(page);
        if let Some(next) = next {
            // Most callers need the first page only, so prefetching starts after the second.
            self.stage = if first {
                Stage::Request(next)
            } else {
                self.prefetch(next)
            };
        }
        if events.is_empty() && !first {
            return Ok(None);
        }
        Ok(Some((ReadBatch { events, token }, self)))
    }

    fn prefetch(&self, progress: Progress) -> Stage {
        let (pool, request) = (Arc::clone(&self.pool), progress.request.clone());
        let task = tokio::spawn(async move { fetch(&pool, &request).await });
        Stage::Prefetching(Prefetch(task), progress)
    }
}

impl Progress {
    fn of(read: &Read) -> Result<Self, ReadError> {
        let mut bounds = Bounds::ALL;
        let forwards = read.direction == Direction::Forwards;
        match (read.from, &read.scope) {
            (ReadFrom::End, _) => {}
            (ReadFrom::Position(from), _) if forwards => {
                bounds.positions.0 = to_bigint(from.get()).max(1)
            }
            (ReadFrom::Position(from), _) => bounds.positions.1 = to_bigint(from.get()),
            (ReadFrom::Revision(from), Scope::Stream(_)) if forwards => {
                bounds.revisions.0 = to_bigint(from.get())
            }
            (ReadFrom::Revision(from), Scope::Stream(_)) => {
                bounds.revisions.1 = to_bigint(from.get())
            }
            (ReadFrom::Revision(_), _) => {
                let reason = "read from a revision names no stream".to_owned();
                return Err(ReadError::Invalid { reason });
            }
        }
        let remaining = read.limit.unwrap_or(u64::MAX);
        let request = PageRequest {
            scope: read.scope.clone(),
            query: read.query.clone(),
            direction: read.direction,
            bounds,
            limit: to_bigint(remaining).min(FIRST_PAGE),
            with_head: true,
            last: None,
        };
        Ok(Self {
            request,
            head: Position::START,
            remaining,
        })
    }

    /// Returns the events of a page that belong to the read, and the next request if there may be more.
    fn advance(mut self, page: Page) -> (Vec<leftfold_model::RecordedEvent>, Option<Self>) {
        let last = page.events.last().map(|event| {
            (
                to_bigint(event.position.get()),
                to_bigint(event.revision.get()),
            )
        });
        let returned = page.events.len();
        let mut events = page.events;
        // Events committed after the read started are not part of it.
        events.retain(|event| event.position <= self.head);
        self.remaining = self.remaining.saturating_sub(events.len() as u64);
        let Some((position, revision)) = last.filter(|_| page.more && self.remaining > 0) else {
            return (events, None);
        };
        let bounds = &mut self.request.bounds;
        if self.request.direction == Direction::Forwards {
            if position >= to_bigint(self.head.get()) {
                return (events, None);
            }
            bounds.positions = (position + 1, to_bigint(self.head.get()));
            bounds.revisions.0 = revision.saturating_add(1);
        } else {
            if position <= 1 {
                return (events, None);
            }
            bounds.positions.1 = (position - 1).min(to_bigint(self.head.get()));
            bounds.revisions.1 = revision - 1;
        }
        // A page that was truncated by its size shows how many events of this size fit.
        let fits = i64::try_from(returned).unwrap_or(PAGE);
        let truncated = fits < self.request.limit;
        self.request.limit =
            if truncated { fits.max(1) } else { PAGE }.min(to_bigint(self.remaining));
        self.request.with_head = false;
        (events, Some(self))
    }
}
