//! Who consumes a group, and the right to do so.
//!
//! **Owns:** [`group_to_consume`], [`consumer_info`]. **Does not know:** how a protocol names groups, or what consumers do.
//! **Invariants:** a caller without the right learns nothing about the group, not even whether it exists.

use std::sync::Arc;

use futures_util::TryStreamExt;
use leftfold_model::Read;
use leftfold_store::ReadError;

use crate::{
    access::Principal,
    call,
    connection::Peer,
    groups::{ConsumerInfo, GroupCatalog, GroupDefinition, GroupError, GroupId, GroupSource},
    state::ServerState,
};

/// Characters of the name of a connection that are kept.
const CONNECTION_NAME_CHARS_MAX: usize = 255;

/// Returns what operators are shown of a consumer: who the request is from, and what its connection calls itself.
pub(super) fn consumer_info(peer: Option<&Peer>, connection_name: Option<&str>) -> ConsumerInfo {
    let name = connection_name.unwrap_or_default().chars();
    ConsumerInfo {
        from: peer.map_or_else(String::new, |peer| peer.address.to_string()),
        username: match call::principal() {
            Principal::Anonymous => "anonymous".to_owned(),
            Principal::User { login, .. } => login.to_string(),
            Principal::Key { name, .. } => name.to_string(),
        },
        connection_name: name.take(CONNECTION_NAME_CHARS_MAX).collect(),
    }
}

/// Returns the definition of a group that the principal of the request may consume.
///
/// A group reads with the rights of the server. So its consumers need the right to read the stream that the group reads;
/// groups of everything are for administrators, since operators need not have the right to read.
///
/// # Errors
/// [`GroupError::Read`] with `AccessDenied`, and the errors of the catalog.
pub(super) async fn group_to_consume(
    shared: &ServerState,
    id: &GroupId,
) -> Result<GroupDefinition, GroupError> {
    if let Some(access) = &shared.access
        && !access.is_administrator(&call::principal())
    {
        let GroupSource::Stream(stream) = &id.source else {
            return Err(GroupError::Read(ReadError::AccessDenied {
                reason: format!("group {id} reads everything; expected an administrator"),
            }));
        };
        let read = Read::stream(stream.clone()).limit(1);
        match shared.store().read(read).try_next().await {
            Ok(_) | Err(ReadError::StreamDeleted { .. }) => {}
            Err(error) => return Err(GroupError::Read(error)),
        }
    }
    let definitions = GroupCatalog::new(Arc::clone(shared.unguarded_store()));
    definitions.get(id).await
}
