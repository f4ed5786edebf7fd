//! The service of the second protocol: its methods, their limits and their responses.
//!
//! **Owns:** [`Streams`]. **Does not know:** how methods work.
//! **Invariants:** an append that began finishes, even if its client is gone; a session that the client does not end in time
//! writes nothing.

use std::sync::Arc;

use leftfold_proto::kurrentdb::protocol::v2::streams::{
    AppendRecordsRequest, AppendRecordsResponse, AppendRequest, AppendSessionResponse,
    streams_service_server,
};
use tokio::time::timeout_at;
use tonic::{Request, Response, Status, Streaming};

use super::{records::Records, session::Session};
use crate::{call, state::ServerState};

/// Appends to several streams.
#[derive(Debug)]
pub(super) struct Streams {
    shared: Arc<ServerState>,
}

impl Streams {
    pub(super) fn new(shared: &Arc<ServerState>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }
}

#[tonic::async_trait]
impl streams_service_server::StreamsService for Streams {
    async fn append_session(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<AppendSessionResponse>, Status> {
        let deadline = call::deadline(&self.shared);
        let session = timeout_at(
            deadline,
            Session::gather(&self.shared, request.into_inner()),
        )
        .await;
        let session = session.map_err(|_| {
            Status::deadline_exceeded("the session was not ended in time, nothing was written")
        })??;
        let append = session.execute(self.shared.store());
        let answer = call::run_to_completion(&self.shared, deadline, append).await??;
        Ok(Response::new(answer))
    }

    async fn append_records(
        &self,
        request: Request<AppendRecordsRequest>,
    ) -> Result<Response<AppendRecordsResponse>, Status> {
        let deadline = call::deadline(&self.shared);
        let records = Records::from_proto(request.into_inner())?;
        let append = records.execute(self.shared.store());
        let answer = call::run_to_completion(&self.shared, deadline, append).await??;
        Ok(Response::new(answer))
    }
}
