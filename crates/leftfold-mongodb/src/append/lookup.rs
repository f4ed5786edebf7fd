//! Looking up what the decisions of a group need to know of earlier commits.
//!
//! **Owns:** [`Found`] and the queries for it; the last revisions of streams, cached. **Does not know:** the rules.
//! **Invariants:** all of it is as of one commit, and every response of the server proves that it has that commit.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{Append, EventId, EventType, Position, Query, Revision, StreamName, Tag};
use mongodb::bson::{Binary, doc};

use crate::{
    document::{CommitDocument, event_id, to_i64, to_u64, uuid},
    error::Failure,
    log::{CommitPart, EventPart, Log, Newest, Order},
    query::{all_of, query_filter},
};

/// Maximum concurrent operations of one lookup.
const CONCURRENT: usize = 8;
/// Maximum streams whose last revision is cached.
const REVISIONS_MAX: usize = 65_536;

/// The place of a stored event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    pub(super) stream: StreamName,
    pub(super) revision: Revision,
    pub(super) position: Position,
}

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

/// The last revisions of streams as of the newest commit known.
#[derive(Debug, Default)]
pub(super) struct Revisions {
    /// `None`: the stream has no event.
    known: HashMap<StreamName, Option<Revision>>,
}

impl Revisions {
    /// Applies a commit that follows the newest known one.
    pub(super) fn apply(&mut self, commit: &CommitDocument) -> Result<(), Failure> {
        for event in &commit.events {
            if let Some(known) = self.known.get_mut(event.stream.as_str()) {
                *known = Some(Revision::new(to_u64(event.revision)?));
            }
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    fn insert(&mut self, stream: StreamName, revision: Option<Revision>) {
        if self.known.len() >= REVISIONS_MAX {
            self.known.clear();
        }
        self.known.insert(stream, revision);
    }
}

/// Finds what the appends need to know as of the newest commit.
pub(super) async fn look_up(
    log: &Log,
    newest: Option<&Newest>,
    appends: &[&Append],
    revisions: &mut Revisions,
) -> Result<Found, Failure> {
    let Some(newest) = newest else {
        return Ok(Found::default());
    };
    let ((ids, fresh), matching) = futures_util::future::try_join(
        futures_util::future::try_join(
            ids(log, newest, appends),
            last_revisions(log, newest, appends, revisions),
        ),
        matching(log, newest, appends),
    )
    .await?;
    for (stream, revision) in fresh {
        revisions.insert(stream, revision);
    }
    let mut found = Found {
        ids,
        matching,
        ..Found::default()
    };
    for stream in streams(appends) {
        if let Some(Some(revision)) = revisions.known.get(stream) {
            found.revisions.insert(stream.clone(), *revision);
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

async fn ids(
    log: &Log,
    newest: &Newest,
    appends: &[&Append],
) -> Result<HashMap<EventId, Stored>, Failure> {
    let wanted: Vec<Binary> = appends
        .iter()
        .flat_map(|append| append.events())
        .map(|event| uuid(*event.id().as_bytes()))
        .collect();
    let mut found = HashMap::new();
    let mut damaged = None;
    let projection =
        doc! { "events.id": 1, "events.stream": 1, "events.revision": 1, "events.position": 1 };
    let filter = doc! { "events.id": { "$in": &wanted } };
    log.look_up(newest, filter, projection, Order::NewestFirst, |part| {
        for event in part.events {
            match stored(&event) {
                Ok((id, stored)) => drop(found.insert(id, stored)),
                Err(failure) => damaged = Some(failure),
            }
        }
        true
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
    revisions: &Revisions,
) -> Result<Vec<(StreamName, Option<Revision>)>, Failure> {
    let unknown = streams(appends)
        .into_iter()
        .filter(|stream| !revisions.known.contains_key(*stream));
    let asking = unknown.map(|stream| async move {
        let last = last_revision(log, newest, stream).await?;
        Ok((stream.clone(), last))
    });
    let asking: Vec<_> = asking.collect();
    stream::iter(asking)
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await
}

/// Finds the revision of a stream's newest event.
async fn last_revision(
    log: &Log,
    newest: &Newest,
    stream: &StreamName,
) -> Result<Option<Revision>, Failure> {
    let filter = doc! { "events.stream": stream.as_str() };
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
