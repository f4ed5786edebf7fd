//! Encoding the contract's values as messages.
//!
//! **Owns:** the form of requests. **Does not know:** calls.

use leftfold_model::{
    Append, AppendCondition, Direction, EventId, ExpectedRevision, NewEvent, Query, QueryItem,
    Read, ReadFrom, Scope, StreamCheck, StreamWrite,
};
use leftfold_proto::leftfold::v1::{
    self as wire, expected::Kind as ExpectedKind, read_request::From, scope::Kind as ScopeKind,
};
use leftfold_store::{Delete, SavedSnapshot, Subscription};
use uuid::Uuid;

pub(crate) fn append(append: &Append) -> wire::AppendRequest {
    wire::AppendRequest {
        writes: append.writes().iter().map(write).collect(),
        checks: append.checks().iter().map(check).collect(),
        conditions: append.conditions().iter().map(condition).collect(),
    }
}

fn write(write: &StreamWrite) -> wire::Write {
    wire::Write {
        stream: write.stream.to_string(),
        expected: expected(write.expected),
        events: write.events.iter().map(event).collect(),
    }
}

fn check(check: &StreamCheck) -> wire::Check {
    wire::Check {
        stream: check.stream.to_string(),
        expected: expected(check.expected),
    }
}

fn condition(condition: &AppendCondition) -> wire::Condition {
    wire::Condition {
        fail_if_match: query(&condition.fail_if_match),
        token: condition.after.seen_through().get(),
    }
}

fn event(event: &NewEvent) -> wire::NewEvent {
    let (id_high, id_low) = id(event.id());
    wire::NewEvent {
        id_high,
        id_low,
        r#type: event.event_type().to_string(),
        content_type: event.content_type().code().into(),
        data: event.data().clone(),
        metadata: event.metadata().clone(),
        tags: event.tags().iter().map(ToString::to_string).collect(),
        time: event.time().map(leftfold_model::Timestamp::as_micros),
    }
}

fn id(id: EventId) -> (u64, u64) {
    Uuid::from(id).as_u64_pair()
}

fn expected(expected: ExpectedRevision) -> Option<wire::Expected> {
    let kind = match expected {
        ExpectedRevision::Any => return None,
        ExpectedRevision::NoStream => ExpectedKind::NoStream(()),
        ExpectedRevision::StreamExists => ExpectedKind::Exists(()),
        ExpectedRevision::Exact(revision) => ExpectedKind::Revision(revision.get()),
    };
    Some(wire::Expected { kind: Some(kind) })
}

fn query(query: &Query) -> Option<wire::Query> {
    let Query::Items(items) = query else {
        return None;
    };
    let item = |item: &QueryItem| wire::QueryItem {
        types: item.type_list().iter().map(ToString::to_string).collect(),
        tags: item.tag_list().iter().map(ToString::to_string).collect(),
    };
    Some(wire::Query {
        items: items.iter().map(item).collect(),
    })
}

/// Encodes a scope; `None` if this protocol has no value for it.
fn scope(scope: &Scope) -> Option<Option<wire::Scope>> {
    let kind = match scope {
        Scope::All => return Some(None),
        Scope::Stream(name) => ScopeKind::Stream(name.to_string()),
        Scope::Category(name) => ScopeKind::Category(name.to_string()),
        _ => return None,
    };
    Some(Some(wire::Scope { kind: Some(kind) }))
}

pub(crate) fn read(read: &Read) -> Option<wire::ReadRequest> {
    Some(wire::ReadRequest {
        scope: scope(&read.scope)?,
        query: query(&read.query),
        from: match read.from {
            ReadFrom::End => None,
            ReadFrom::Position(position) => Some(From::Position(position.get())),
            ReadFrom::Revision(revision) => Some(From::Revision(revision.get())),
        },
        backwards: read.direction == Direction::Backwards,
        limit: read.limit,
    })
}

pub(crate) fn subscription(subscription: &Subscription) -> Option<wire::SubscribeRequest> {
    Some(wire::SubscribeRequest {
        scope: scope(&subscription.scope)?,
        query: query(&subscription.query),
        after: subscription.after.get(),
    })
}

pub(crate) fn delete(delete: &Delete) -> wire::DeleteRequest {
    wire::DeleteRequest {
        stream: delete.stream.to_string(),
        expected: expected(delete.expected),
        permanent: delete.permanent,
    }
}

pub(crate) fn snapshot(snapshot: &SavedSnapshot) -> wire::Snapshot {
    let (last_event_high, last_event_low) = id(snapshot.last_event);
    wire::Snapshot {
        revision: snapshot.revision.get(),
        position: snapshot.position.get(),
        last_event_high,
        last_event_low,
        fingerprint: snapshot.fingerprint.to_vec().into(),
        state: snapshot.state.clone(),
    }
}
