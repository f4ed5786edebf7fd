//! One read, page after page.
//!
//! **Owns:** where a read stands, and fetching the next page while its caller is busy with this one.
//! **Does not know:** SQL.
//! **Invariants:** all pages see the log up to the head that the first one found; at most one page is fetched ahead; a read
//! that is dropped fetches no more.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{ConflictToken, Direction, Position, Read, ReadFrom, Scope};
use leftfold_store::{ReadBatch, ReadError};
use tokio::task::JoinHandle;

use super::{
    page::{Page, PageRequest, fetch},
    select::Bounds,
};
use crate::{pool::Pool, value::to_bigint};

/// Events of the first page: more than most streams have.
const FIRST_PAGE: i64 = 256;
/// Events of a later page.
const PAGE: i64 = 2_048;

/// Answers a read.
pub(crate) fn read(
    pool: Arc<Pool>,
    read: Read,
) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
    let begin = Reader {
        pool,
        stage: Stage::Begin(read),
    };
    Box::pin(stream::try_unfold(begin, Reader::step))
}

struct Reader {
    pool: Arc<Pool>,
    stage: Stage,
}

enum Stage {
    Begin(Read),
    /// The next page, as a wish or already under way.
    Request(Progress),
    UnderWay(Prefetch, Progress),
    Done,
}

/// Where a read stands.
#[derive(Clone)]
struct Progress {
    wanted: PageRequest,
    head: Position,
    remaining: u64,
}

/// A page under way; it is given up when nobody waits for it any more.
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
            Stage::Begin(read) => {
                let mut progress = Progress::of(&read)?;
                let page = fetch(&self.pool, &progress.wanted).await?;
                progress.head = page.head.unwrap_or_default();
                (page, progress, true)
            }
            Stage::Request(progress) => {
                (fetch(&self.pool, &progress.wanted).await?, progress, false)
            }
            Stage::UnderWay(ahead, progress) => (ahead.page().await?, progress, false),
            Stage::Done => return Ok(None),
        };
        let token = ConflictToken::from(progress.head);
        let (events, next) = progress.advance(page);
        if let Some(next) = next {
            // A first page is often all that is wanted, so only then is another one fetched unasked.
            self.stage = if first {
                Stage::Request(next)
            } else {
                self.ahead(next)
            };
        }
        if events.is_empty() && !first {
            return Ok(None);
        }
        Ok(Some((ReadBatch { events, token }, self)))
    }

    fn ahead(&self, progress: Progress) -> Stage {
        let (pool, wanted) = (Arc::clone(&self.pool), progress.wanted.clone());
        let under_way = tokio::spawn(async move { fetch(&pool, &wanted).await });
        Stage::UnderWay(Prefetch(under_way), progress)
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
        let wanted = PageRequest {
            scope: read.scope.clone(),
            query: read.query.clone(),
            direction: read.direction,
            bounds,
            limit: to_bigint(remaining).min(FIRST_PAGE),
            with_head: true,
        };
        Ok(Self {
            wanted,
            head: Position::START,
            remaining,
        })
    }

    /// What of a page belongs to the read, and where to go on, if there may be more.
    fn advance(mut self, page: Page) -> (Vec<leftfold_model::RecordedEvent>, Option<Self>) {
        let last = page.events.last().map(|event| {
            (
                to_bigint(event.position.get()),
                to_bigint(event.revision.get()),
            )
        });
        let delivered = page.events.len();
        let mut events = page.events;
        // What was committed after the read began is not part of it.
        events.retain(|event| event.position <= self.head);
        self.remaining = self.remaining.saturating_sub(events.len() as u64);
        let Some((position, revision)) = last.filter(|_| page.more && self.remaining > 0) else {
            return (events, None);
        };
        let bounds = &mut self.wanted.bounds;
        if self.wanted.direction == Direction::Forwards {
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
        // A page that was cut short by its bytes tells how many events of this size fit.
        let fits = i64::try_from(delivered).unwrap_or(PAGE);
        let cut = fits < self.wanted.limit;
        self.wanted.limit = if cut { fits.max(1) } else { PAGE }.min(to_bigint(self.remaining));
        self.wanted.with_head = false;
        (events, Some(self))
    }
}
