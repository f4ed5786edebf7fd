//! Who consumes a group, and the right to do so.
//!
//! **Owns:** [`group_to_consume`], [`ConsumerAccess`], [`consumer_info`]. **Does not know:** how a protocol names groups, or
//! what consumers do.
//! **Invariants:** a caller without the right learns nothing about the group, not even whether it exists; no consumer is given
//! an event that its principal may not read.

use std::sync::Arc;

use crate::{
    access::{GroupReader, Principal},
    call,
    connection::Peer,
    groups::{
        ConsumerInfo, DeliveredMessage, GroupCatalog, GroupDefinition, GroupError, GroupId,
        GroupSource, LinkTarget, Message,
    },
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
            Principal::User { login, .. } | Principal::Token { login, .. } => login.to_string(),
            Principal::Key { name, .. } => name.to_string(),
        },
        connection_name: name.take(CONNECTION_NAME_CHARS_MAX).collect(),
    }
}

/// What the principal of a consumer may be given of its group.
#[derive(Debug)]
pub(super) struct ConsumerAccess(
    /// `None`: the server does not authenticate, and everyone may do everything.
    Option<GroupReader>,
);

/// Returns the definition of a group that the principal of the request may consume, and what it may be given of it.
///
/// # Errors
/// [`GroupError::Read`] with `AccessDenied`, and the errors of the catalog.
pub(super) async fn group_to_consume(
    shared: &ServerState,
    id: &GroupId,
) -> Result<(GroupDefinition, ConsumerAccess), GroupError> {
    let reader = match &shared.access {
        Some(access) => {
            let stream = match &id.source {
                GroupSource::Stream(stream) => Some(stream.clone()),
                GroupSource::All => None,
            };
            Some(access.group_reader(call::principal(), stream)?)
        }
        None => None,
    };
    // Consumers may not read the definition themselves.
    let definitions = GroupCatalog::new(Arc::clone(shared.unguarded_store()));
    Ok((definitions.get(id).await?, ConsumerAccess(reader)))
}

impl ConsumerAccess {
    /// Returns a message as the consumer may be given it: a link to an event that it may not read leads nowhere.
    ///
    /// # Errors
    /// [`GroupError::Read`] with `AccessDenied`: the consumer may not have the message, which goes back to its group when the
    /// consumer leaves.
    pub(super) fn admit(
        &self,
        delivered: DeliveredMessage,
    ) -> Result<DeliveredMessage, GroupError> {
        let Some(reader) = &self.0 else {
            return Ok(delivered);
        };
        let message = &delivered.message;
        if !reader.may_see(&message.original)? {
            return Err(reader.denial(&message.original).into());
        }
        let LinkTarget::Event(target) = &message.target else {
            return Ok(delivered);
        };
        if reader.may_see(target)? {
            return Ok(delivered);
        }
        Ok(DeliveredMessage {
            message: Arc::new(Message {
                original: message.original.clone(),
                target: LinkTarget::Missing,
                replayed: message.replayed,
            }),
            retries: delivered.retries,
        })
    }

    /// Waits until the right to consume has ended, and returns why. Cancel safe.
    pub(super) async fn ended(&mut self) -> GroupError {
        match &mut self.0 {
            Some(reader) => reader.ended().await.into(),
            None => std::future::pending().await,
        }
    }
}
