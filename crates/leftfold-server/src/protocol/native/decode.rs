//! Decoding messages into the store's values.
//!
//! **Owns:** the validation of messages. **Does not know:** calls; limits of names and sizes, which the model checks.
//! **Invariants:** every message becomes a valid value or an error that names what is wrong.

use leftfold_model::{
    Append, AppendCondition, Bytes, Category, ContentType, EventId, EventType, ExpectedRevision,
    NewEvent, Position, Query, QueryItem, Read, ReadFrom, Revision, Scope, StreamCheck, StreamName,
    StreamWrite, Tag, Timestamp,
};
use leftfold_proto::leftfold::v1::{
    self as wire, expected::Kind as ExpectedKind, read_request::From, scope::Kind as ScopeKind,
};
use leftfold_store::{Delete, ListStreams, SavedSnapshot, Subscription};
use uuid::Uuid;

use super::status::ErrorResponse;
use crate::protocol::interner::NameInterner;

type Decoded<T> = Result<T, ErrorResponse>;

pub(super) fn append(request: wire::AppendRequest) -> Decoded<Append> {
    let writes = request.writes.into_iter().map(write);
    let conditions = request.conditions.into_iter().map(condition);
    let checks: Vec<_> = request
        .checks
        .into_iter()
        .map(check)
        .collect::<Decoded<_>>()?;
    let append = Append::new(
        writes.collect::<Decoded<_>>()?,
        conditions.collect::<Decoded<_>>()?,
    )?;
    Ok(append.with_checks(checks)?)
}

fn write(write: wire::Write) -> Decoded<StreamWrite> {
    let mut names = NameInterner::default();
    let events = write.events.into_iter();
    let events = events.map(|given| event(given, &mut names));
    Ok(StreamWrite {
        stream: StreamName::new(write.stream)?,
        expected: expected(write.expected),
        events: events.collect::<Decoded<_>>()?,
    })
}

fn check(check: wire::Check) -> Decoded<StreamCheck> {
    Ok(StreamCheck {
        stream: StreamName::new(check.stream)?,
        expected: expected(check.expected),
    })
}

fn condition(condition: wire::Condition) -> Decoded<AppendCondition> {
    let query = query(condition.fail_if_match)?;
    Ok(AppendCondition::new(query, Position::new(condition.token)))
}

fn event(event: wire::NewEvent, names: &mut NameInterner) -> Decoded<NewEvent> {
    let content_type = u8::try_from(event.content_type)
        .ok()
        .and_then(ContentType::from_code)
        .ok_or_else(|| {
            ErrorResponse::invalid(format!(
                "content type {} of an event is unknown",
                event.content_type
            ))
        })?;
    let tags = names.tags(&event.tags)?;
    let id = Some(id(event.id_high, event.id_low));
    let id = id.filter(|id| !id.is_nil()).unwrap_or_else(EventId::fresh);
    let event_type = names.event_type(&event.r#type)?;
    let decoded = NewEvent::new_with_id(id, event_type, content_type, event.data)
        .with_metadata(event.metadata)
        .with_tags(tags)?;
    Ok(match event.time {
        Some(micros) => decoded.with_time(Timestamp::from_micros(micros)),
        None => decoded,
    })
}

fn id(high: u64, low: u64) -> EventId {
    Uuid::from_u64_pair(high, low).into()
}

fn expected(expected: Option<wire::Expected>) -> ExpectedRevision {
    match expected.and_then(|expected| expected.kind) {
        None => ExpectedRevision::Any,
        Some(ExpectedKind::NoStream(_)) => ExpectedRevision::NoStream,
        Some(ExpectedKind::Exists(_)) => ExpectedRevision::StreamExists,
        Some(ExpectedKind::Revision(revision)) => ExpectedRevision::Exact(Revision::new(revision)),
    }
}

fn query(query: Option<wire::Query>) -> Decoded<Query> {
    let items = query.map(|query| query.items).unwrap_or_default();
    if items.is_empty() {
        return Ok(Query::All);
    }
    let item = |item: wire::QueryItem| {
        let types = EventType::parse_all(item.types)?;
        Ok(QueryItem::new(types, Tag::parse_all(item.tags)?)?)
    };
    let items: Vec<_> = items.into_iter().map(item).collect::<Decoded<_>>()?;
    Ok(Query::items(items)?)
}

fn scope(scope: Option<wire::Scope>) -> Decoded<Scope> {
    Ok(match scope.and_then(|scope| scope.kind) {
        None => Scope::All,
        Some(ScopeKind::Stream(name)) => Scope::Stream(StreamName::new(name)?),
        Some(ScopeKind::Category(name)) => Scope::Category(Category::new(name)?),
    })
}

pub(super) fn read(request: wire::ReadRequest) -> Decoded<Read> {
    let read = Read {
        scope: scope(request.scope)?,
        query: query(request.query)?,
        from: match request.from {
            None => ReadFrom::End,
            Some(From::Position(position)) => ReadFrom::Position(Position::new(position)),
            Some(From::Revision(revision)) => ReadFrom::Revision(Revision::new(revision)),
        },
        limit: request.limit,
        ..Read::all()
    };
    Ok(if request.backwards {
        read.backwards()
    } else {
        read
    })
}

pub(super) fn subscription(request: wire::SubscribeRequest) -> Decoded<Subscription> {
    Ok(Subscription {
        scope: scope(request.scope)?,
        query: query(request.query)?,
        after: Position::new(request.after),
    })
}

pub(super) fn delete(request: wire::DeleteRequest) -> Decoded<Delete> {
    let (stream, expected) = (StreamName::new(request.stream)?, expected(request.expected));
    Ok(if request.permanent {
        Delete::tombstone(stream, expected)
    } else {
        Delete::stream(stream, expected)
    })
}

pub(super) fn list(request: wire::ListRequest) -> Decoded<ListStreams> {
    let after = Some(request.after).filter(|name| !name.is_empty());
    Ok(ListStreams {
        prefix: request.prefix,
        after: after.map(StreamName::new).transpose()?,
        limit: request.limit,
    })
}

pub(super) fn snapshot(snapshot: Option<wire::Snapshot>) -> Decoded<SavedSnapshot> {
    let snapshot = snapshot.ok_or_else(|| ErrorResponse::invalid("snapshot is missing"))?;
    let length = snapshot.fingerprint.len();
    let fingerprint = snapshot.fingerprint.as_ref().try_into().map_err(|_| {
        ErrorResponse::invalid(format!(
            "fingerprint of a snapshot has {length} bytes; it needs 16"
        ))
    })?;
    Ok(SavedSnapshot {
        revision: Revision::new(snapshot.revision),
        position: Position::new(snapshot.position),
        last_event: id(snapshot.last_event_high, snapshot.last_event_low),
        fingerprint,
        // The store may keep it for long, and the bytes of the message may be many more.
        state: Bytes::copy_from_slice(&snapshot.state),
    })
}
