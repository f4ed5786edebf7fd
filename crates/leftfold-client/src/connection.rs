//! One connection to the server.
//!
//! **Owns:** [`Connection`], the stub of its calls, and its last error.
//! **Does not know:** which connection a call takes, and how appends are sent.

use std::sync::{Arc, Mutex, PoisonError};

use leftfold_proto::leftfold::v1::store_client::StoreClient;
use leftfold_store::Cause;
use tokio::sync::mpsc;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use crate::{credentials::Authorize, queued_append::QueuedAppend};

/// The calls of the protocol, over one connection.
pub(crate) type StoreStub = StoreClient<InterceptedService<Channel, Authorize>>;

/// A connection; the next call after its loss reconnects.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) calls: StoreStub,
    /// Appends that wait to be sent over it.
    pub(crate) appends: mpsc::Sender<QueuedAppend>,
    /// Why its last call failed.
    pub(crate) last_error: Arc<LastError>,
}

/// The newest error of a connection.
#[derive(Debug, Default)]
pub(crate) struct LastError(Mutex<Option<Cause>>);

impl LastError {
    pub(crate) fn set(&self, cause: Option<Cause>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    pub(crate) fn get(&self) -> Option<Cause> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.clone()
    }
}
