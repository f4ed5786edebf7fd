//! The right to consume a group.
//!
//! **Owns:** [`group_to_consume`]. **Does not know:** how a protocol names groups, or what consumers do.
//! **Invariants:** a caller without the right learns nothing about the group, not even whether it exists.

use std::sync::Arc;

use futures_util::TryStreamExt;
use leftfold_model::Read;
use leftfold_store::ReadError;

use crate::{
    call,
    groups::{GroupCatalog, GroupDefinition, GroupError, GroupId, GroupSource},
    state::ServerState,
};

/// Returns the definition of a group that the principal of the request may consume.
///
/// A group reads with the rights of the server. So its consumers need the right to read the stream that the group reads;
/// groups of everything are for operators.
///
/// # Errors
/// [`GroupError::Read`] with `AccessDenied`, and the errors of the catalog.
pub(super) async fn group_to_consume(
    shared: &ServerState,
    id: &GroupId,
) -> Result<GroupDefinition, GroupError> {
    if let Some(access) = &shared.access
        && !access.is_operator(&call::principal())
    {
        let GroupSource::Stream(stream) = &id.source else {
            return Err(GroupError::Read(ReadError::AccessDenied {
                reason: format!("group {id} reads everything; expected an operator"),
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
