//! Removing the data of erased events, commit after commit.
//!
//! **Owns:** [`erase`]: rewriting commits without the data of some events, at a bounded rate. **Does not know:** which events
//! no stream read can show any more.
//! **Invariants:** a rewrite changes nothing but data, metadata and the mark of erased events, and fails if another scavenge
//! rewrote the commit since it was read; a run may end behind any commit, and another one does the rest.

use std::{collections::HashMap, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{Position, Revision, StreamName};
use leftfold_store::{ReadError, ScavengeProgress, Truncation};
use mongodb::{Collection, bson::doc};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use crate::{
    document::{CommitDocument, binary, to_i64, to_u64},
    error::Failure,
    keys,
    log::{Log, Order},
    payload::Payloads,
    read::{place_of, with_retry},
};

/// Bytes that rewriting an event moves beside its content.
const EVENT_BYTES: u64 = 400;

/// Erases the events that `truncations` name.
pub(crate) fn erase(
    log: Log,
    truncations: Vec<Truncation>,
    bytes_per_second: Option<u64>,
) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
    let begin = Erasure {
        payloads: Payloads::new(log.clone()),
        erased: log.collection("erased"),
        log,
        parts: truncations.len() as u64,
        rest: truncations,
        after: Position::START,
        bytes_per_second: bytes_per_second.map(|rate| rate.max(1)),
        due: Instant::now(),
        progress: ScavengeProgress::default(),
    };
    Box::pin(stream::try_unfold(Some(begin), |erasure| async {
        match erasure {
            Some(erasure) => erasure.step().await.map(Some),
            None => Ok(None),
        }
    }))
}

/// How far earlier runs erased a stream. Derived: removing it costs the next run one pass over the stream.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(rename = "_id")]
    stream: String,
    through: i64,
}

struct Erasure {
    log: Log,
    erased: Collection<Line>,
    payloads: Payloads,
    parts: u64,
    rest: Vec<Truncation>,
    /// The last handled position of the stream.
    after: Position,
    bytes_per_second: Option<u64>,
    /// When the next page may begin.
    due: Instant,
    progress: ScavengeProgress,
}

impl Erasure {
    async fn step(mut self) -> Result<(ScavengeProgress, Option<Self>), ReadError> {
        let Some(truncation) = self.rest.last().cloned() else {
            self.progress.parts_done = self.parts;
            self.progress.parts = self.parts;
            self.progress.finished = true;
            return Ok((self.progress, None));
        };
        sleep_until(self.due).await;
        let begun = Instant::now();
        let (events, bytes, more) = self
            .erase_page(&truncation)
            .await
            .map_err(Failure::into_read_error)?;
        if !more {
            self.rest.pop();
            self.after = Position::START;
        }
        if let Some(rate) = self.bytes_per_second {
            let moved = bytes + events * EVENT_BYTES;
            let seconds = moved as f64 / rate as f64;
            self.due = begun + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        }
        self.progress = ScavengeProgress::of(
            self.parts - self.rest.len() as u64,
            self.parts,
            self.progress.events + events,
            self.progress.bytes + bytes,
        );
        Ok((self.progress, Some(self)))
    }

    /// Erases a stream's truncated events in a page of commits. Returns events, bytes, and whether there are more commits.
    async fn erase_page(&mut self, truncation: &Truncation) -> Result<(u64, u64, bool), Failure> {
        let Truncation { stream, before } = truncation;
        let Some(last) = before.get().checked_sub(1).map(Revision::new) else {
            return Ok((0, 0, false));
        };
        let end = with_retry(&self.log, || place_of(&self.log, stream, last)).await?;
        if self.after == Position::START {
            self.after = self.erased_through(stream).await?;
        }
        let mut filter = doc! {
            "keys": keys::stream(stream.as_str()),
            "last": { "$gt": to_i64(self.after.get()) },
        };
        if let Some(end) = end {
            filter.insert("first", doc! { "$lte": to_i64(end.get()) });
        }
        let page = with_retry(&self.log, || {
            self.log.page(filter.clone(), Order::OldestFirst)
        })
        .await?;
        let (mut events, mut bytes) = (0, 0);
        for commit in page.commits {
            self.after = Position::new(to_u64(commit.last)?);
            let mut erased = HashMap::new();
            let before = to_i64(before.get());
            self.erase_commit(commit, stream.as_str(), before, &mut erased)
                .await?;
            events += erased.len() as u64;
            bytes += erased.values().sum::<u64>();
        }
        if !page.more
            && let Some(end) = end
        {
            self.remember(stream, end).await?;
        }
        Ok((events, bytes, page.more))
    }

    /// Returns the position up to which earlier runs erased a stream's truncated events.
    async fn erased_through(&self, stream: &StreamName) -> Result<Position, Failure> {
        let finding = || async {
            let finding = self.erased.find_one(doc! { "_id": stream.as_str() });
            self.log.within(finding.into_future()).await
        };
        match with_retry(&self.log, finding).await? {
            // The commit that holds this position may hold later events of the stream.
            Some(line) => Ok(Position::new(to_u64(line.through)?).previous()),
            None => Ok(Position::START),
        }
    }

    async fn remember(&self, stream: &StreamName, through: Position) -> Result<(), Failure> {
        let line = Line {
            stream: stream.as_str().to_owned(),
            through: to_i64(through.get()),
        };
        let replacing = || async {
            let replacing = self
                .erased
                .replace_one(doc! { "_id": &line.stream }, &line)
                .upsert(true);
            self.log.within(replacing.into_future()).await
        };
        with_retry(&self.log, replacing).await.map(drop)
    }

    /// Erases a stream's truncated events in a commit. Adds the bytes of each event to `erased`, by position.
    async fn erase_commit(
        &self,
        mut commit: CommitDocument,
        stream: &str,
        before: i64,
        erased: &mut HashMap<i64, u64>,
    ) -> Result<(), Failure> {
        loop {
            let mut payloads = Vec::new();
            erased.clear();
            for event in &mut commit.events {
                if event.erased || event.stream != stream || event.revision >= before {
                    continue;
                }
                let mut bytes = (event.data.bytes.len() + event.metadata.bytes.len()) as u64;
                if let Some(payload) = event.payload.take() {
                    bytes += to_u64(payload.data_bytes)? + to_u64(payload.metadata_bytes)?;
                    payloads.push(payload);
                }
                event.data = binary([]);
                event.metadata = binary([]);
                event.json = None;
                event.erased = true;
                erased.insert(event.position, bytes);
            }
            if erased.is_empty() {
                return Ok(());
            }
            commit.generation += 1;
            commit.checksum = commit.checksum();
            if with_retry(&self.log, || self.log.rewrite(&commit)).await? {
                return self.payloads.remove(&payloads).await;
            }
            // Another scavenge rewrote it, or this one did and its answer was lost.
            let number = commit.number;
            let filter = doc! { "_id": number };
            let page = with_retry(&self.log, || {
                self.log.page(filter.clone(), Order::OldestFirst)
            })
            .await?;
            let again = page.commits.into_iter().next();
            commit =
                again.ok_or_else(|| Failure::Damaged(format!("commit {number} is missing")))?;
        }
    }
}
