//! An append on its way from its caller to a connection.
//!
//! **Owns:** [`QueuedAppend`], the claim that decides between its caller and the connection, and its [`SendOutcome`].
//! **Does not know:** connections. **Invariants:** either the caller withdraws it or the connection sends it, never both.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use leftfold_proto::leftfold::v1::{self as wire, ErrorDetail};
use leftfold_store::Cause;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// An append that waits to be sent.
#[derive(Debug)]
pub(crate) struct QueuedAppend {
    pub(crate) append: wire::AppendRequest,
    pub(crate) bytes: usize,
    pub(crate) claim: Arc<SendClaim>,
    pub(crate) outcome: oneshot::Sender<SendOutcome>,
    /// Its permit among the appends in flight. It moves with the append, because a caller may stop polling without dropping it.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// The outcome of sending an append.
#[derive(Debug)]
pub(crate) enum SendOutcome {
    Appended(wire::Appended),
    Failed(ErrorDetail),
    /// The server certainly did nothing.
    NotBegun,
    /// The connection ended before the response arrived.
    Lost(Cause),
}

/// The claim on an append, by its caller or by the connection that sends it.
#[derive(Debug, Default)]
pub(crate) struct SendClaim(AtomicU8);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl SendClaim {
    /// Claims it for the connection; `false` if it was withdrawn.
    pub(crate) fn take(&self) -> bool {
        self.leave_waiting(TAKEN)
    }

    /// Withdraws it; `false` if the connection has it.
    pub(crate) fn withdraw(&self) -> bool {
        self.leave_waiting(WITHDRAWN)
    }

    fn leave_waiting(&self, to: u8) -> bool {
        let left = self
            .0
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire);
        left.is_ok()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Acquire) == WAITING
    }
}
