//! The service `Streams`: dispatching its methods.
//!
//! **Owns:** decoding a request to the module that serves it, and ending streams at shutdown. **Does not know:** how reads,
//! subscriptions and appends work.

use std::sync::Arc;

use futures_core::{Stream, stream::BoxStream};
use futures_util::{StreamExt, future, stream};
use leftfold_proto::event_store::client::streams::{
    AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, DeleteReq, DeleteResp, ReadReq,
    ReadResp, TombstoneReq, TombstoneResp, streams_server,
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    append, batch, delete, read,
    request::{Answers, Extent, ReadRequest, ReadTarget, StartFrom},
    status, subscribe,
};
use crate::state::ServerState;

/// A response to a read.
type Answer = Result<ReadResp, Status>;

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

impl Streams {
    /// Returns the responses to a read.
    async fn answer(&self, request: ReadRequest) -> Result<Answers, Status> {
        let shared = &*self.shared;
        if shared.stopping.is_cancelled() {
            return Err(status::stopping());
        }
        if let ReadTarget::All(StartFrom::At(position)) = request.target
            && position > shared.store().head().await.map_err(status::of_read)?
        {
            return Err(status::invalid_position());
        }
        let ReadRequest {
            target,
            direction,
            extent,
            options,
            filter,
        } = request;
        match (extent, target) {
            (Extent::Subscription, target) => {
                let answers = match target {
                    ReadTarget::Stream(stream, after) => {
                        subscribe::stream(shared, stream, after, options).await?
                    }
                    ReadTarget::All(after) => {
                        subscribe::all(shared, after, filter, options).await?
                    }
                };
                Ok(stop_after_error(until_shutdown(shared, answers)).boxed())
            }
            // A read ends by itself, and may do so while the server stops.
            (Extent::Count(count), ReadTarget::Stream(stream, from)) => {
                let extent = (from, direction, count);
                let answers = read::read_stream(shared, stream, extent, options).await?;
                Ok(stop_after_error(answers).boxed())
            }
            (Extent::Count(count), ReadTarget::All(from)) => {
                let answers = read::read_all(shared, (from, direction, count), filter, options)?;
                Ok(stop_after_error(answers).boxed())
            }
        }
    }
}

/// Ends a stream of responses with a status at shutdown.
fn until_shutdown(
    shared: &ServerState,
    answers: Answers,
) -> impl Stream<Item = Answer> + Send + use<> {
    let stopping = shared.stopping.clone();
    let stop = async move { stopping.cancelled().await };
    let stopping = stream::once(future::ready(Err(status::stopping())));
    let ended = answers.map(Some).chain(stream::once(future::ready(None)));
    // The end of the answers is the end, not a reason to say that the server stops.
    ended
        .take_until(stop)
        .chain(stopping.map(Some))
        .take_while(|answer| future::ready(answer.is_some()))
        .filter_map(future::ready)
}

/// Ends a stream of responses after an error.
fn stop_after_error(
    answers: impl Stream<Item = Answer> + Send,
) -> impl Stream<Item = Answer> + Send {
    answers.scan(false, |failed, answer| {
        let next = (!*failed).then_some(answer);
        *failed = matches!(&next, Some(Err(_)));
        future::ready(next)
    })
}

#[async_trait]
impl streams_server::Streams for Streams {
    type ReadStream = BoxStream<'static, Result<ReadResp, Status>>;
    type BatchAppendStream = BoxStream<'static, Result<BatchAppendResp, Status>>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Self::ReadStream>, Status> {
        let request = ReadRequest::from_wire(request.into_inner()).await?;
        self.answer(request).await.map(Response::new)
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
