//! What a running group is asked, and what it answers.
//!
//! **Owns:** [`Command`], and what is measured of a group. **Does not know:** what becomes of a command.

use leftfold_model::EventId;
use tokio::sync::{mpsc, oneshot};

use super::{
    error::GroupError,
    message::{ConsumerKey, DeliveredMessage, NackAction},
};

/// Who connects, and how much it takes at once.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInput {
    pub(crate) info: ConsumerInfo,
    pub(crate) window: usize,
}

/// Who a consumer is, for operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConsumerInfo {
    pub(crate) from: String,
    pub(crate) username: String,
    pub(crate) connection_name: String,
}

/// What a group is asked.
#[derive(Debug)]
pub(super) enum Command {
    Connect {
        input: ConnectionInput,
        reply: oneshot::Sender<Result<Joined, GroupError>>,
    },
    Ack(Vec<EventId>),
    Nack {
        key: ConsumerKey,
        ids: Vec<EventId>,
        action: NackAction,
        reason: String,
    },
    Disconnect(ConsumerKey),
    Statistics(oneshot::Sender<GroupStatistics>),
    LookAtParked,
    Restart,
}

/// What a consumer gets that joined.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) key: ConsumerKey,
    pub(super) deliveries: mpsc::Receiver<Result<DeliveredMessage, GroupError>>,
}

/// How a group is doing at some moment.
#[derive(Debug, Default)]
pub(crate) struct GroupStatistics {
    pub(crate) consumers: Vec<ConsumerStatistics>,
    pub(crate) caught_up: bool,
    pub(crate) total: u64,
    pub(crate) since_last: u64,
    pub(crate) per_second: u64,
    pub(crate) pending: usize,
    pub(crate) retrying: usize,
    pub(crate) in_flight: usize,
    pub(crate) replaying: u64,
    /// Why parked events or the checkpoint cannot be written down, if that is so.
    pub(crate) trouble: Option<String>,
}

/// How a consumer is doing at some moment.
#[derive(Debug)]
pub(crate) struct ConsumerStatistics {
    pub(crate) info: ConsumerInfo,
    pub(crate) total: u64,
    pub(crate) since_last: u64,
    pub(crate) per_second: u64,
    pub(crate) free: usize,
    pub(crate) in_flight: usize,
    pub(crate) measurements: Vec<(&'static str, i64)>,
}

impl Command {
    /// Tells a consumer that waits to join why it cannot.
    pub(super) fn refuse(self, error: &GroupError) {
        if let Self::Connect { reply, .. } = self {
            // A consumer that waits no longer is not told.
            let _ = reply.send(Err(error.clone()));
        }
    }
}
