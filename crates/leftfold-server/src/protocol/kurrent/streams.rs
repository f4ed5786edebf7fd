//! The service `Streams`: which method is done where.
//!
//! **Owns:** the methods' first look at a request. **Does not know:** what becomes of it.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use leftfold_proto::event_store::client::streams::{
    AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, DeleteReq, DeleteResp, ReadReq,
    ReadResp, TombstoneReq, TombstoneResp, streams_server,
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{append, batch, delete, read};
use crate::state::ServerState;

/// The service.
#[derive(Debug)]
pub(super) struct Streams {
    shared: Arc<ServerState>,
}

impl Streams {
    pub(super) fn new(shared: Arc<ServerState>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl streams_server::Streams for Streams {
    type ReadStream = BoxStream<'static, Result<ReadResp, Status>>;
    type BatchAppendStream = BoxStream<'static, Result<BatchAppendResp, Status>>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Self::ReadStream>, Status> {
        let asked = read::ReadRequest::from_wire(request.into_inner())?;
        read::answer(&self.shared, asked).await.map(Response::new)
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        let appended = append::append(&self.shared, request);
        appended.await.map(Response::new)
    }

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Self::BatchAppendStream>, Status> {
        let answers = batch::answers(Arc::clone(&self.shared), request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        let deleted = delete::delete(&self.shared, request);
        deleted.await.map(Response::new)
    }

    async fn tombstone(
        &self,
        request: Request<TombstoneReq>,
    ) -> Result<Response<TombstoneResp>, Status> {
        let deleted = delete::tombstone(&self.shared, request);
        deleted.await.map(Response::new)
    }
}
