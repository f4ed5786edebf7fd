//! What can go wrong with a group.
//!
//! **Owns:** [`GroupError`]. **Does not know:** how a wire tells it.

use leftfold_model::ModelError;
use leftfold_store::{AppendError, ReadError, consumers::ConsumerError};

use super::{GroupId, InvalidGroup};
use crate::event_filter::FilterError;

/// Why a group was not created, changed or joined, or why a consumer was dropped from it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// There is a group of this name.
    #[error("group {0} exists; update it, or delete it first")]
    Exists(GroupId),
    /// There is no group of this name.
    #[error("group {0} is not known; list the groups to see which are")]
    NotFound(GroupId),
    /// A setting breaks a limit.
    #[error(transparent)]
    Invalid(#[from] InvalidGroup),
    /// The filter cannot be used.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The group has as many consumers as it may.
    #[error("group {group} has as many consumers as it may: {max}")]
    SubscribersMax {
        /// The group.
        group: GroupId,
        /// How many it may have.
        max: u32,
    },
    /// The group was deleted or restarted, or the consumer was told to stop.
    #[error("consumer dropped from group {group}: {reason}")]
    Dropped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// Another server acts for the group.
    #[error("group {group} is owned by {owner}; connect to that server")]
    OwnedElsewhere {
        /// The group.
        group: GroupId,
        /// The address of that server.
        owner: String,
    },
    /// Another server acts for the group, and has the address of this one.
    #[error(
        "group {group} is owned by another server with the address of this one: {owner}; expected an advertised_host \
         of its own for each server"
    )]
    OwnerIndistinct {
        /// The group.
        group: GroupId,
        /// The address of both.
        owner: String,
    },
    /// The definition that is kept of a group cannot be read.
    #[error(
        "definition of a group is damaged: stream {stream}; delete that stream and create the group again"
    )]
    Damaged {
        /// The stream that holds it.
        stream: String,
    },
    /// The server is stopping.
    #[error("server is stopping")]
    Stopping,
    /// A name is too long.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The definition was not written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Checkpoints or parked events cannot be read or changed.
    #[error(transparent)]
    Consumers(#[from] ConsumerError),
}
