//! The list of streams.
//!
//! **Owns:** the collection `streams`: one document per stream, derived from the commits and brought up to date by each
//! listing. **Does not know:** retention.
//! **Invariants:** the collection is derived, so dropping it costs one pass over the log; a document only moves forwards, so
//! any number of processes may update it at the same time.

use std::collections::HashMap;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{Position, Revision, StreamName, Timestamp};
use leftfold_store::{ListStreams, ReadError, StreamInfo};
use mongodb::{
    Collection,
    bson::{Document, doc},
};
use serde::{Deserialize, Serialize};

use crate::{
    document::to_u64,
    error::Failure,
    keys,
    log::{CommitPart, Log},
    read::with_retry,
};

/// Streams of a batch at most.
const BATCH_STREAMS: usize = 512;
/// Commits that are taken into the list at once.
const COMMITS: i64 = 1_024;
/// Lines that are written side by side.
const CONCURRENT: usize = 8;
/// The key of the line that says up to which commit the list is. No stream has an empty name.
const CHECKPOINT: &str = "";

/// A stream in the list. The one with an empty name keeps the number of the newest commit in the list as its revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    #[serde(rename = "_id")]
    stream: String,
    revision: i64,
    position: i64,
    time: i64,
}

/// Lists streams.
pub(crate) fn streams(
    log: Log,
    list: ListStreams,
) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
    let remaining = list.limit.unwrap_or(u64::MAX);
    let begin = (log, list, remaining, false);
    Box::pin(stream::try_unfold(
        begin,
        |(log, mut list, remaining, begun)| async move {
            let lines: Collection<Line> = log.collection("streams");
            if !begun {
                bring_up_to_date(&log, &lines)
                    .await
                    .map_err(Failure::into_read_error)?;
            }
            let limit =
                usize::try_from(remaining).map_or(BATCH_STREAMS, |most| most.min(BATCH_STREAMS));
            let batch = with_retry(&log, || batch(&log, &lines, &list, limit))
                .await
                .map_err(Failure::into_read_error)?;
            let Some(last) = batch.last() else {
                return Ok(None);
            };
            list.after = Some(last.stream.clone());
            let remaining = remaining - batch.len() as u64;
            Ok(Some((batch, (log, list, remaining, true))))
        },
    ))
}

async fn batch(
    log: &Log,
    lines: &Collection<Line>,
    list: &ListStreams,
    limit: usize,
) -> Result<Vec<StreamInfo>, Failure> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let after = list.after.as_ref().map_or("", |stream| stream.as_str());
    let filter = doc! { "_id": { "$gte": &list.prefix, "$gt": after } };
    let finding = lines
        .find(filter)
        .sort(doc! { "_id": 1 })
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .into_future();
    let mut cursor = log.within(finding).await?;
    let mut infos = Vec::new();
    while let Some(line) = log.within(cursor.try_next()).await? {
        // Names with one prefix are adjacent in the order of bytes.
        if !line.stream.starts_with(&list.prefix) {
            break;
        }
        infos.push(StreamInfo {
            stream: StreamName::new(line.stream.as_str())
                .map_err(|error| Failure::Damaged(error.to_string()))?,
            events: to_u64(line.revision)? + 1,
            revision: Revision::new(to_u64(line.revision)?),
            position: Position::new(to_u64(line.position)?),
            time: Timestamp::from_micros(to_u64(line.time)?),
        });
    }
    Ok(infos)
}

/// Takes the commits that are not in the list yet into it.
async fn bring_up_to_date(log: &Log, lines: &Collection<Line>) -> Result<(), Failure> {
    let checkpoint = with_retry(log, || async {
        log.within(lines.find_one(doc! { "_id": CHECKPOINT }).into_future())
            .await
    })
    .await?;
    let mut through = checkpoint.map_or(0, |line| line.revision);
    loop {
        let parts = with_retry(log, || commits_after(log, through)).await?;
        let Some(last) = parts.last() else {
            return Ok(());
        };
        through = last.number;
        let mut newest: HashMap<&str, Line> = HashMap::new();
        for event in parts.iter().flat_map(|part| &part.events) {
            let line = Line {
                stream: event.stream.clone(),
                revision: event.revision,
                position: event.position,
                time: event.time,
            };
            newest.insert(&event.stream, line);
        }
        let writing: Vec<_> = newest
            .into_values()
            .map(|line| async move { with_retry(log, || write(log, lines, &line)).await })
            .collect();
        stream::iter(writing)
            .buffer_unordered(CONCURRENT)
            .try_collect::<()>()
            .await?;
        let checkpoint = Line {
            stream: CHECKPOINT.to_owned(),
            revision: through,
            position: 0,
            time: 0,
        };
        with_retry(log, || write(log, lines, &checkpoint)).await?;
    }
}

async fn commits_after(log: &Log, number: i64) -> Result<Vec<CommitPart>, Failure> {
    let projection = doc! {
        "events.stream": 1, "events.revision": 1, "events.position": 1, "events.time": 1,
    };
    let commits = log.collection::<CommitPart>("commits");
    let finding = commits
        .find(doc! { "_id": { "$gt": number } })
        .sort(doc! { "_id": 1 })
        .limit(COMMITS)
        .projection(projection)
        .into_future();
    let cursor = log.within(finding).await?;
    log.within(cursor.try_collect()).await
}

/// Moves a line forwards, or makes it.
async fn write(log: &Log, lines: &Collection<Line>, line: &Line) -> Result<(), Failure> {
    let older = doc! { "_id": &line.stream, "revision": { "$lt": line.revision } };
    let values: Document =
        doc! { "revision": line.revision, "position": line.position, "time": line.time };
    let updating = lines
        .update_one(older, doc! { "$set": values })
        .into_future();
    if log.within(updating).await?.matched_count == 1 {
        return Ok(());
    }
    match log.within(lines.insert_one(line).into_future()).await {
        Ok(_) => Ok(()),
        // It is there, and as new or newer.
        Err(failure) if failure.is_duplicate_key() => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Finds the revision of a stream's newest event.
pub(crate) async fn current(log: &Log, stream: &StreamName) -> Result<Option<Revision>, Failure> {
    let commits = log.collection::<CommitPart>("commits");
    let finding = commits
        .find_one(doc! { "keys": keys::stream(stream.as_str()) })
        .sort(doc! { "last": -1 })
        .projection(doc! { "events.stream": 1, "events.revision": 1 })
        .into_future();
    let Some(part) = log.within(finding).await? else {
        return Ok(None);
    };
    let of_stream = part
        .events
        .iter()
        .filter(|event| event.stream == stream.as_str());
    of_stream
        .map(|event| event.revision)
        .max()
        .map(|revision| to_u64(revision).map(Revision::new))
        .transpose()
}
