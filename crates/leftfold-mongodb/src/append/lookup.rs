//! Looking up what the decisions of a group need to know of earlier commits.
//!
//! **Owns:** [`Found`] and the queries for it. **Does not know:** the rules; which of it is cached, beyond asking `known`.
//! **Invariants:** all of it is as of one commit, and every response of the server proves that it has that commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{
    Append, EventId, EventType, ExpectedRevision, Position, Query, Revision, StreamName, Tag,
};
use mongodb::bson::{Document, doc};

use super::known::{Known, RECENT_IDS, Stored};
use crate::{
    document::{event_id, to_i64, to_u64},
    error::Failure,
    keys,
    log::{CommitPart, EventPart, Log, Newest, Order},
    query::{all_of, query_filter},
};

/// Maximum concurrent operations of one lookup.
const CONCURRENT: usize = 8;
/// The results of the lookups for a group.
#[derive(Debug, Default)]
pub(super) struct Found {
    ids: HashMap<EventId, Stored>,
    revisions: HashMap<StreamName, Revision>,
    /// For the condition of this number of the append of this number: an event that fails it.
    matching: HashMap<(usize, usize), Position>,
}

impl Found {
    pub(super) fn stored(&self, id: EventId) -> Option<&Stored> {
        self.ids.get(&id)
    }

    pub(super) fn revision(&self, stream: &StreamName) -> Option<Revision> {
        self.revisions.get(stream).copied()
    }

    pub(super) fn matching(&self, append: usize, condition: usize) -> Option<Position> {
        self.matching.get(&(append, condition)).copied()
    }
}

/// Finds what the appends need to know as of the newest commit.
pub(super) async fn look_up(
    log: &Log,
    newest: Option<&Newest>,
    appends: &[&Append],
    known: &mut Known,
) -> Result<Found, Failure> {
    let Some(newest) = newest else {
        known.fill(Vec::new());
        return Ok(Found::default());
    };
    if known.is_unfilled() {
        let recent = places(log, newest, Document::new(), RECENT_IDS).await?;
        known.fill(recent);
    }
    let streams = streams(appends);
    let (looked_up, matching) = futures_util::future::try_join(
        last_revisions(log, newest, appends, known),
        matching(log, newest, appends),
    )
    .await?;
    let revisions = known.take_in(&streams, looked_up);
    let mut found = Found {
        ids: older_ids(log, newest, open_ids(appends, &revisions, known)).await?,
        matching,
        revisions,
    };
    for event in appends.iter().flat_map(|append| append.events()) {
        if let Some(stored) = known.event(event.id()) {
            found.ids.insert(event.id(), stored.clone());
        }
    }
    Ok(found)
}

/// Returns the streams that the appends write or check.
fn streams<'a>(appends: &[&'a Append]) -> BTreeSet<&'a StreamName> {
    let of = |append: &&'a Append| {
        let written = append.writes().iter().map(|write| &write.stream);
        written.chain(append.checks().iter().map(|check| &check.stream))
    };
    appends.iter().flat_map(of).collect()
}

/// Returns the keys of the ids that an older event than the recent ones may have, so that the append is a repetition of it.
///
/// Events at a fixed revision that the stream does not have yet repeat nothing.
fn open_ids(
    appends: &[&Append],
    revisions: &HashMap<StreamName, Revision>,
    known: &Known,
) -> Vec<String> {
    if known.has_every_id() {
        return Vec::new();
    }
    let writes = appends.iter().flat_map(|append| append.writes());
    let open = writes.filter(|write| {
        let last = revisions.get(&write.stream);
        let next = last.map_or(Revision::FIRST, |last| last.next());
        write.expected.next_revision().is_none_or(|at| at < next)
    });
    let events = open.flat_map(|write| &write.events);
    events
        .filter(|event| known.event(event.id()).is_none())
        .map(|event| keys::id(event.id()))
        .collect()
}

async fn older_ids(
    log: &Log,
    newest: &Newest,
    wanted: Vec<String>,
) -> Result<HashMap<EventId, Stored>, Failure> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let filter = doc! { "keys": { "$in": wanted } };
    Ok(places(log, newest, filter, usize::MAX)
        .await?
        .into_iter()
        .collect())
}

/// Finds the ids and places of the events of matching commits, newest first, of at least so many if there are so many.
async fn places(
    log: &Log,
    newest: &Newest,
    filter: Document,
    enough: usize,
) -> Result<Vec<(EventId, Stored)>, Failure> {
    let projection =
        doc! { "events.id": 1, "events.stream": 1, "events.revision": 1, "events.position": 1 };
    let mut found = Vec::new();
    let mut damaged = None;
    log.look_up(newest, filter, projection, Order::NewestFirst, |part| {
        for event in part.events.iter().rev() {
            match stored(event) {
                Ok(place) => found.push(place),
                Err(failure) => damaged = Some(failure),
            }
        }
        found.len() < enough
    })
    .await?;
    damaged.map_or(Ok(found), Err)
}

fn stored(event: &EventPart) -> Result<(EventId, Stored), Failure> {
    let missing = || Failure::Damaged(format!("event at position {}: no id", event.position));
    let id = event_id(event.id.as_ref().ok_or_else(missing)?)?;
    let stored = Stored {
        stream: name(&event.stream)?,
        revision: Revision::new(to_u64(event.revision)?),
        position: Position::new(to_u64(event.position)?),
    };
    Ok((id, stored))
}

fn name(text: &str) -> Result<StreamName, Failure> {
    StreamName::new(text).map_err(|error| Failure::Damaged(error.to_string()))
}

/// Looks up the last revisions of those streams of the appends that are not cached.
async fn last_revisions(
    log: &Log,
    newest: &Newest,
    appends: &[&Append],
    known: &Known,
) -> Result<Vec<(StreamName, Option<Revision>)>, Failure> {
    let mut unknown = streams(appends);
    unknown.retain(|stream| known.revision(stream).is_none());
    let mut found = as_expected(log, newest, &fixed(appends, &unknown)).await?;
    for (stream, _) in &found {
        unknown.remove(stream);
    }
    let asking = unknown.into_iter().map(|stream| async move {
        let last = last_revision(log, newest, stream).await?;
        Ok::<_, Failure>((stream.clone(), last))
    });
    let asking: Vec<_> = asking.collect();
    let others: Vec<_> = stream::iter(asking)
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await?;
    found.extend(others);
    Ok(found)
}

/// Returns the last revision that the appends expect each of these streams to have, where they fix one.
fn fixed<'a>(
    appends: &[&'a Append],
    of: &BTreeSet<&StreamName>,
) -> BTreeMap<&'a StreamName, Option<Revision>> {
    let expected = appends.iter().flat_map(|append| {
        let written = append.writes().iter();
        let written = written.map(|write| (&write.stream, write.expected));
        let checked = append.checks().iter();
        written.chain(checked.map(|check| (&check.stream, check.expected)))
    });
    let mut fixed = BTreeMap::new();
    for (stream, expected) in expected.filter(|(stream, _)| of.contains(stream)) {
        let last = match expected {
            ExpectedRevision::NoStream => None,
            ExpectedRevision::Exact(last) => Some(last),
            _ => continue,
        };
        fixed.entry(stream).or_insert(last);
    }
    fixed
}

/// Finds with one lookup which of these streams have the last revision that is expected of them.
///
/// A stream ends at a revision if it has an event there and none at the next one. So many streams cost what one costs, and
/// the lookup reads no more than two commits of each, however long it is.
async fn as_expected(
    log: &Log,
    newest: &Newest,
    expected: &BTreeMap<&StreamName, Option<Revision>>,
) -> Result<Vec<(StreamName, Option<Revision>)>, Failure> {
    if expected.is_empty() {
        return Ok(Vec::new());
    }
    let next = |last: Option<Revision>| last.map_or(Revision::FIRST, Revision::next);
    let places: BTreeSet<(&str, u64)> = expected
        .iter()
        .flat_map(|(stream, last)| {
            let revisions = last.iter().copied().chain([next(*last)]);
            revisions.map(|revision| (stream.as_str(), revision.get()))
        })
        .collect();
    let keys: Vec<String> = places
        .iter()
        .map(|(stream, revision)| keys::place(stream, Revision::new(*revision)))
        .collect();
    let filter = doc! { "keys": { "$in": keys } };
    let projection = doc! { "events.stream": 1, "events.revision": 1 };
    let mut taken: HashSet<(String, u64)> = HashSet::new();
    log.look_up(newest, filter, projection, Order::NewestFirst, |part| {
        for event in part.events {
            let place = (event.stream, event.revision.unsigned_abs());
            if places.contains(&(place.0.as_str(), place.1)) {
                taken.insert(place);
            }
        }
        true
    })
    .await?;
    let has = |stream: &StreamName, revision: Revision| {
        taken.contains(&(stream.as_str().to_owned(), revision.get()))
    };
    let holds = expected.iter().filter(|(stream, last)| {
        last.is_none_or(|last| has(stream, last)) && !has(stream, next(**last))
    });
    Ok(holds
        .map(|(stream, last)| ((*stream).clone(), *last))
        .collect())
}

/// Finds the revision of a stream's newest event.
async fn last_revision(
    log: &Log,
    newest: &Newest,
    stream: &StreamName,
) -> Result<Option<Revision>, Failure> {
    let filter = doc! { "keys": keys::stream(stream.as_str()) };
    let projection = doc! { "events.stream": 1, "events.revision": 1 };
    let mut last = None;
    log.look_up(
        newest,
        filter,
        projection,
        Order::NewestFirst,
        |part: CommitPart| {
            let of_stream = part
                .events
                .iter()
                .filter(|event| event.stream == stream.as_str());
            last = of_stream.map(|event| event.revision).max();
            last.is_none()
        },
    )
    .await?;
    last.map(|revision| to_u64(revision).map(Revision::new))
        .transpose()
}

/// Finds, for each condition that an event fails, the oldest such event.
async fn matching(
    log: &Log,
    newest: &Newest,
    appends: &[&Append],
) -> Result<HashMap<(usize, usize), Position>, Failure> {
    let conditions = appends.iter().enumerate().flat_map(|(append, appended)| {
        let conditions = appended.conditions().iter().enumerate();
        conditions.map(move |(number, condition)| ((append, number), condition))
    });
    let asking: Vec<_> = conditions
        .filter(|(_, condition)| to_i64(condition.after.seen_through().get()) < newest.last)
        .map(|(key, condition)| async move {
            let after = condition.after.seen_through();
            let found = first_match(log, newest, &condition.fail_if_match, after).await?;
            Ok(found.map(|position| (key, position)))
        })
        .collect();
    stream::iter(asking)
        .buffer_unordered(CONCURRENT)
        .try_filter_map(|found| async move { Ok(found) })
        .try_collect()
        .await
}

/// Finds the oldest event after a position that matches.
async fn first_match(
    log: &Log,
    newest: &Newest,
    query: &Query,
    after: Position,
) -> Result<Option<Position>, Failure> {
    let after = to_i64(after.get());
    let beyond = doc! { "last": { "$gt": after } };
    let filter = all_of([beyond].into_iter().chain(query_filter(query)));
    let projection = doc! { "events.position": 1, "events.type": 1, "events.tags": 1 };
    let mut matching = None;
    let mut damaged = None;
    log.look_up(
        newest,
        filter,
        projection,
        Order::OldestFirst,
        |part: CommitPart| {
            for event in part.events.iter().filter(|event| event.position > after) {
                match matches(query, event) {
                    Ok(true) => {
                        matching = Some(event.position);
                        break;
                    }
                    Ok(false) => {}
                    Err(failure) => damaged = Some(failure),
                }
            }
            matching.is_none() && damaged.is_none()
        },
    )
    .await?;
    if let Some(failure) = damaged {
        return Err(failure);
    }
    matching
        .map(|position| to_u64(position).map(Position::new))
        .transpose()
}

fn matches(query: &Query, event: &EventPart) -> Result<bool, Failure> {
    let damaged = |error: leftfold_model::ModelError| {
        Failure::Damaged(format!("event at position {}: {error}", event.position))
    };
    let event_type = EventType::new(event.event_type.as_str()).map_err(damaged)?;
    let tags: Result<Vec<_>, _> = event
        .tags
        .iter()
        .map(|tag| Tag::new(tag.as_str()))
        .collect();
    Ok(query.matches(&event_type, &tags.map_err(damaged)?))
}
