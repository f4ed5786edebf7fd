//! Streams that servers of KurrentDB's clients keep and that this server does not.
//!
//! **Owns:** their names, and what to use instead; [`refuse_scope`] for wires without computed streams.
//! **Does not know:** the answers of a wire.
//! **Invariants:** a stream that events were appended to is that stream, whatever its name; any other stream of such a name is
//! refused by name, because its readers would take an empty one for the truth.

use leftfold_model::{Scope, StreamName};
use leftfold_store::{EventStore, ReadError, StreamStatus};

use crate::{event_filter::INDEX_PREFIX, system_index::SystemIndex};

/// What the names of all streams of groups begin with. This server has one of them for each group: its definition.
pub(crate) const GROUP_PREFIX: &str = "$persistentsubscription-";

/// How a name is recognised.
#[derive(Debug, Clone, Copy)]
enum Name {
    Exact(&'static str),
    Prefix(&'static str),
    /// A computed stream, by how its name begins, of nothing that there can be.
    Invalid(&'static str),
    /// A stream of a group, by how its name ends.
    OfGroup(&'static str),
}

impl Name {
    fn is_of(self, name: &StreamName) -> bool {
        let stream = name.as_str();
        match self {
            Self::Invalid(prefix) => {
                stream.starts_with(prefix) && SystemIndex::named(name).is_none()
            }
            Self::Exact(name) => stream == name,
            Self::Prefix(prefix) => stream.starts_with(prefix),
            Self::OfGroup(suffix) => stream.starts_with(GROUP_PREFIX) && stream.ends_with(suffix),
        }
    }
}

/// The names, and what to use instead.
const NOT_KEPT: [(Name, &str); 18] = [
    (
        Name::Exact("$all"),
        "a read of everything: GET /api/v1/events, or the option all of a read",
    ),
    (
        Name::OfGroup("-parked"),
        "GET /api/v1/subscriptions/STREAM/GROUP/parked, or leftfold groups parked",
    ),
    (
        Name::OfGroup("-checkpoint"),
        "the method GetInfo, or leftfold groups show",
    ),
    (
        Name::Exact("$persistentSubscriptionConfig"),
        "the method List, or leftfold groups list",
    ),
    (
        Name::Prefix("$projections-"),
        "the service Projections for those of the system; this server runs none of users",
    ),
    (
        Name::Exact("$scavenges"),
        "the metrics, which count scavenges",
    ),
    (
        Name::Prefix("$scavenges-"),
        "the metrics, which count scavenges",
    ),
    (
        Name::Prefix("$stats-"),
        "the metrics, or the method Stats of the service Monitoring",
    ),
    (Name::Prefix("$mem-"), "GET /gossip, or GET /info"),
    (
        Name::Exact("$epoch-information"),
        "GET /gossip: one server writes",
    ),
    (
        Name::Exact("$users"),
        "the service Users, or leftfold users",
    ),
    (
        Name::Exact("$UserPasswordNotifications"),
        "the audit: leftfold audit",
    ),
    (
        Name::Exact("$policies"),
        "$acl of streams, and the grants of keys",
    ),
    (
        Name::Invalid("$ce-"),
        "$ce-CATEGORY, with the name of a category",
    ),
    (Name::Invalid("$et-"), "$et-TYPE, with a type of events"),
    (
        Name::Invalid("$bc-"),
        "$bc-CORRELATION, with the id of a correlation",
    ),
    (
        Name::Invalid("$category-"),
        "$category-CATEGORY, with the name of a category",
    ),
    (
        Name::Prefix("$connectors"),
        "a listener of a program of your own",
    ),
];

/// Returns what to use instead of a stream that this server does not keep.
pub(crate) fn instead_of(stream: &StreamName) -> Option<&'static str> {
    let text = stream.as_str();
    // Most names end here.
    if !text.starts_with('$') {
        return None;
    }
    let row = NOT_KEPT.iter().find(|(name, _)| name.is_of(stream));
    row.map(|(_, instead)| *instead)
}

/// Returns why there is no stream of this name on a wire that has no computed streams.
fn reason(stream: &StreamName) -> Option<String> {
    let text = stream.as_str();
    if !text.starts_with('$') {
        return None;
    }
    let is_computed = text.starts_with(INDEX_PREFIX) || SystemIndex::named(stream).is_some();
    let instead = match is_computed {
        true => "a category, a type or a query; only clients of KurrentDB read it under this name",
        false => instead_of(stream)?,
    };
    Some(format!(
        "stream not kept by this server: {text}; expected {instead}"
    ))
}

/// Refuses a read of a stream that this server does not keep, for wires and programs that have no computed streams.
///
/// # Cost
/// A name without `$` at its beginning costs nothing; one that is on the list costs a look at its stream.
///
/// # Errors
/// [`ReadError::Invalid`] with the name; errors of the store.
pub async fn refuse_scope(store: &dyn EventStore, scope: &Scope) -> Result<(), ReadError> {
    let Scope::Stream(stream) = scope else {
        return Ok(());
    };
    let Some(reason) = reason(stream) else {
        return Ok(());
    };
    match store.stream_state(stream.clone()).await?.status {
        StreamStatus::Absent => Err(ReadError::Invalid { reason }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_streams_that_are_kept_elsewhere_lead_to_what_there_is_and_no_others_do() {
        let instead = |name: &str| instead_of(&StreamName::new(name).unwrap());
        for name in [
            "$persistentsubscription-a::g-parked",
            "$persistentsubscription-$all::g-checkpoint",
            "$projections-$all",
            "$projections-sums-result",
            "$scavenges",
            "$scavenges-7d1f",
            "$stats-127.0.0.1:2113",
            "$mem-node-state",
            "$all",
            "$ce-",
            "$et-",
            "$bc-",
            "$category-",
        ] {
            assert!(instead(name).is_some(), "{name}");
        }
        for name in [
            "scavenges",
            "$persistentsubscription-a::g",
            "$settings",
            "$user-ann",
            "$ce-account",
            "$$scavenges",
        ] {
            assert!(instead(name).is_none(), "{name}");
        }
    }
}
