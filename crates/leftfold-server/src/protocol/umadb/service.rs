//! The service of UmaDB's clients: its methods, their limits and their responses.
//!
//! **Owns:** [`Dcb`]. **Does not know:** how methods work.
//! **Invariants:** an append that began finishes, even if its client is gone.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use leftfold_model::Position;
use leftfold_proto::umadb::v1::{
    AppendRequest, AppendResponse, HeadRequest, HeadResponse, ReadRequest, ReadResponse,
    SubscribeRequest, SubscribeResponse, TrackingRequest, TrackingResponse, dcb_server,
};
use tonic::{Request, Response, Status};

use super::{append::AppendCommand, read, status, subscribe, tracking::TrackingStream};
use crate::{call, state::ServerState};

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

/// Reading by query and appending under conditions.
#[derive(Debug)]
pub(super) struct Dcb {
    shared: Arc<ServerState>,
}

impl Dcb {
    pub(super) fn new(shared: &Arc<ServerState>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }
}

#[tonic::async_trait]
impl dcb_server::Dcb for Dcb {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;
    type SubscribeStream = BoxStream<'static, Result<SubscribeResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Answers<ReadResponse> {
        let messages = read::read(&self.shared.store(), request.into_inner())?;
        Ok(Response::new(messages.boxed()))
    }

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Answers<SubscribeResponse> {
        let messages = subscribe::subscribe(&self.shared, request.into_inner()).await?;
        Ok(Response::new(messages.boxed()))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Answer<AppendResponse> {
        let deadline = call::deadline(&self.shared);
        let appending = AppendCommand::from_proto(request.into_inner())?;
        let store = self.shared.store();
        let position = if appending.writes_nothing() {
            let timeout = self.shared.settings.request_timeout;
            let asked = call::with_timeout(&self.shared, timeout, appending.execute(&store)).await;
            asked.map_err(status::of_query)??
        } else {
            let append = async move { appending.execute(&store).await };
            call::run_to_completion(&self.shared, deadline, append).await??
        };
        Ok(Response::new(AppendResponse { position }))
    }

    async fn head(&self, _: Request<HeadRequest>) -> Answer<HeadResponse> {
        let head = read::shown_head(&*self.shared.store()).await;
        let head = head.map_err(|error| status::of_read(&error))?;
        let position = (head > Position::START).then_some(head.get());
        Ok(Response::new(HeadResponse { position }))
    }

    async fn get_tracking_info(
        &self,
        request: Request<TrackingRequest>,
    ) -> Answer<TrackingResponse> {
        let track = TrackingStream::of(&request.into_inner().source)?;
        let newest = track.newest(&self.shared.store()).await?;
        let position = newest.map(|noted| noted.position);
        Ok(Response::new(TrackingResponse { position }))
    }
}
