//! The events of a group on their way to consumers, and what consumers say of them.
//!
//! **Owns:** [`Message`], [`DeliveredMessage`], [`NackAction`]. **Does not know:** who gets which.

use std::sync::Arc;

use leftfold_model::RecordedEvent;

/// A consumer among those of one group.
pub(super) type ConsumerKey = u64;

/// An event of a group.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The event as it was found: itself, or a link to another.
    pub(crate) original: RecordedEvent,
    /// What the link leads to, where links are resolved.
    pub(crate) target: LinkTarget,
    /// Whether it is parked and delivered again.
    pub(crate) replayed: bool,
}

/// What an event leads to.
#[derive(Debug, Clone)]
pub(crate) enum LinkTarget {
    /// It is no link, or links are not resolved.
    NoLink,
    /// Another event.
    Event(RecordedEvent),
    /// An event that is not there.
    Missing,
}

impl Message {
    pub(super) fn bytes(&self) -> usize {
        let size = |event: &RecordedEvent| 256 + event.data.len() + event.metadata.len();
        let target = match &self.target {
            LinkTarget::Event(event) => size(event),
            LinkTarget::NoLink | LinkTarget::Missing => 0,
        };
        size(&self.original) + target
    }
}

/// A message on its way to a consumer.
#[derive(Debug, Clone)]
pub(crate) struct DeliveredMessage {
    pub(crate) message: Arc<Message>,
    /// How often it was retried before.
    pub(crate) retries: u32,
}

/// What a consumer wants done with an event that it does not acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NackAction {
    /// To set it aside.
    Park,
    /// To deliver it again.
    Retry,
    /// To pass over it.
    Skip,
    /// To deliver it to others, and to end this consumer.
    Stop,
}
