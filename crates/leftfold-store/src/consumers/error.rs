//! Errors of consumers: lost claims, moved checkpoints, and stores that fail.
//!
//! **Owns:** [`ConsumerError`]. **Does not know:** the errors of any one store; it carries them as sources.
//! **Invariants:** a lost claim differs from every error that may pass; unless an error says so, nothing was changed.

use std::time::Duration;

use leftfold_model::Position;

use super::name::{ConsumerName, InvalidConsumerName};
use crate::Cause;

/// Why a consumer could not be claimed, moved or read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// An argument breaks a limit. Nothing was changed, and repeating the call cannot help.
    #[error("{what} is not valid: {value}; expected {expected}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// Its value, or its size.
        value: String,
        /// What would be valid.
        expected: String,
    },
    /// A text is no name of a consumer.
    #[error(transparent)]
    Name(#[from] InvalidConsumerName),
    /// Another holder's claim lasts. Claim again when it has run out.
    #[error("consumer {consumer} is claimed by {holder} for another {remaining:?}")]
    Held {
        /// The consumer.
        consumer: ConsumerName,
        /// Who holds it.
        holder: String,
        /// How long that claim lasts unless it is renewed.
        remaining: Duration,
    },
    /// A later claim or a reset replaced this claim. Its holder must stop acting as the consumer.
    #[error("claim of consumer {consumer} is lost: term {term}; the newest term is {newest}")]
    Lost {
        /// The consumer.
        consumer: ConsumerName,
        /// The term of the claim.
        term: u64,
        /// The term that counts.
        newest: u64,
    },
    /// The checkpoint is not where the claim says: two tasks use one claim.
    #[error("checkpoint of consumer {consumer} is at {actual}; expected {expected}")]
    Moved {
        /// The consumer.
        consumer: ConsumerName,
        /// The position of the claim.
        expected: Position,
        /// Where the checkpoint is.
        actual: Position,
    },
    /// The consumer has the maximum of parked events. Retry or skip some, then it continues.
    #[error(
        "consumer {consumer} has too many parked events: {limit} at most; retry or skip some of them"
    )]
    Full {
        /// The consumer.
        consumer: ConsumerName,
        /// How many it may have.
        limit: u64,
    },
    /// No consumer of this name was ever claimed.
    #[error("consumer {consumer} is not known; list the consumers to see which are")]
    NotFound {
        /// The name.
        consumer: ConsumerName,
    },
    /// No event is parked there.
    #[error(
        "event {position} is not parked by consumer {consumer}; list its parked events to see which are"
    )]
    NotParked {
        /// The consumer.
        consumer: ConsumerName,
        /// The event's position.
        position: Position,
    },
    /// The stored consumers are damaged. Nothing was replaced.
    #[error(
        "consumers are damaged: {detail}; restore the file, or move it away to let all consumers start over"
    )]
    Damaged {
        /// Which file, and what is wrong with it.
        detail: String,
        /// The storage's own error, if there is one.
        #[source]
        cause: Option<Cause>,
    },
    /// The caller's rights do not allow it. Nothing was changed.
    #[error("access denied: {reason}")]
    AccessDenied {
        /// Which right is missing, and for what.
        reason: String,
    },
    /// This store keeps no consumers.
    #[error("store keeps no consumers: {store}")]
    Unsupported {
        /// Which kind of store.
        store: &'static str,
    },
    /// Consumers cannot be read or changed now. Whether a change was made is unknown; each may be repeated.
    #[error("consumers are unavailable")]
    Unavailable {
        /// The store's own error.
        #[source]
        cause: Cause,
    },
}

impl ConsumerError {
    /// Returns whether an unchanged call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Held { .. } | Self::Full { .. } | Self::Unavailable { .. }
        )
    }
}
