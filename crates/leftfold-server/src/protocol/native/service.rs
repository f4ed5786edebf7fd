//! The calls of the protocol.
//!
//! **Owns:** [`Native`]. **Does not know:** the formats of messages; see `decode` and `encode`.
//! **Invariants:** calls that write finish after their client disconnects, calls that read stop; at shutdown, calls in flight
//! finish, and streams that would not end by themselves end with a status.

use std::{future::Future, sync::Arc};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use leftfold_model::{Append, Appended, Scope, StreamName};
use leftfold_proto::leftfold::v1::{self as wire, store_server::Store};
use leftfold_store::AppendError;
use tonic::{Request, Response, Status, Streaming};

use super::{
    answer::{self, Answer},
    chunked_append, consumers, decode, encode, session,
    status::ErrorResponse,
};
use crate::{call, state::ServerState, unsupported_stream};

/// The service.
#[derive(Debug)]
pub(super) struct Native {
    shared: Arc<ServerState>,
}

type Messages<T> = BoxStream<'static, Result<T, Status>>;

impl Native {
    pub(super) fn new(shared: &Arc<ServerState>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }

    async fn write(&self, append: Append) -> Answer<wire::Appended> {
        let store = self.shared.store();
        let appended = self
            .finish(async move { store.append(append).await })
            .await?;
        Ok(Response::new(encode::appended(&appended)))
    }

    /// Runs a write to completion, even if its client disconnects.
    async fn finish(
        &self,
        work: impl Future<Output = Result<Appended, AppendError>> + Send + 'static,
    ) -> Result<Appended, ErrorResponse> {
        if self.shared.stopping.is_cancelled() {
            return Err(ErrorResponse::stopping());
        }
        let deadline = call::deadline(&self.shared);
        let outcome = call::run_to_completion(&self.shared, deadline, work).await;
        let unknown = |unfinished| AppendError::OutcomeUnknown {
            cause: Arc::new(unfinished),
        };
        Ok(outcome.map_err(unknown)??)
    }

    /// Runs a read with the request timeout.
    async fn answer<T, E: Into<ErrorResponse>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Status> {
        answer::within_timeout(&self.shared, work).await
    }

    /// Refuses a stream that this server does not keep.
    async fn refuse_unsupported(&self, scope: &Scope) -> Result<(), Status> {
        let store = self.shared.store();
        self.answer(unsupported_stream::refuse_scope(&*store, scope))
            .await
    }

    /// Returns the messages of a stream that would not end by itself, until the server shuts down.
    fn followed<T, M, E>(
        &self,
        items: BoxStream<'static, Result<T, E>>,
        messages: impl Fn(&T) -> Vec<M> + Send + 'static,
    ) -> Messages<M>
    where
        T: Send + 'static,
        M: Send + 'static,
        E: Into<ErrorResponse> + Send + 'static,
    {
        let each = Self::messages(items, messages).into_inner();
        let stopped = || Err(ErrorResponse::stopping().into());
        call::until_shutdown(self.shared.stopping.clone(), each, stopped).boxed()
    }

    /// Returns the messages of a stream to its end.
    fn messages<T, M, E>(
        items: BoxStream<'static, Result<T, E>>,
        messages: impl Fn(&T) -> Vec<M> + Send + 'static,
    ) -> Response<Messages<M>>
    where
        T: Send + 'static,
        M: Send + 'static,
        E: Into<ErrorResponse> + Send + 'static,
    {
        let each = items.flat_map(move |item| {
            let messages: Vec<Result<M, Status>> = match item {
                Ok(item) => messages(&item).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error.into().into())],
            };
            stream::iter(messages)
        });
        Response::new(each.boxed())
    }
}

fn name(stream: String) -> Result<StreamName, ErrorResponse> {
    Ok(StreamName::new(stream)?)
}

#[tonic::async_trait]
impl Store for Native {
    type AppendsStream = Messages<wire::AppendsResponse>;
    type ReadStream = Messages<wire::ReadBatch>;
    type SubscribeStream = Messages<wire::Delivery>;
    type ListStream = Messages<wire::Listing>;
    type ScavengeStream = Messages<wire::ScavengeProgress>;

    async fn describe(&self, _: Request<wire::DescribeRequest>) -> Answer<wire::DescribeResponse> {
        let store = &self.shared.store();
        let head = self.answer(store.head()).await?;
        let capabilities = store.capabilities();
        Ok(Response::new(wire::DescribeResponse {
            durable: capabilities.durable,
            recent_ids: capabilities.recent_ids,
            head: head.get(),
            message_bytes_max: self.shared.settings.message_bytes_max.0,
        }))
    }

    async fn append(&self, request: Request<wire::AppendRequest>) -> Answer<wire::Appended> {
        let append = decode::append(request.into_inner())?;
        self.write(append).await
    }

    async fn append_chunked(
        &self,
        request: Request<Streaming<wire::AppendChunk>>,
    ) -> Answer<wire::Appended> {
        let (memory, deadline) = (
            call::reservation(&self.shared),
            call::deadline(&self.shared),
        );
        let whole = chunked_append::join(request.into_inner(), memory, deadline).await?;
        let append = decode::append(whole.request)?;
        let appended = self.write(append).await;
        drop(whole.memory);
        appended
    }

    async fn appends(
        &self,
        request: Request<Streaming<wire::AppendsRequest>>,
    ) -> Answer<Self::AppendsStream> {
        let answers = session::run(&self.shared, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn read(&self, request: Request<wire::ReadRequest>) -> Answer<Self::ReadStream> {
        let read = decode::read(request.into_inner())?;
        self.refuse_unsupported(&read.scope).await?;
        let batches = self.shared.store().read(read);
        Ok(Self::messages(batches, encode::read_batch))
    }

    async fn subscribe(
        &self,
        request: Request<wire::SubscribeRequest>,
    ) -> Answer<Self::SubscribeStream> {
        let subscription = decode::subscription(request.into_inner())?;
        self.refuse_unsupported(&subscription.scope).await?;
        let deliveries = self.shared.store().subscribe(subscription);
        let followed = self.followed(deliveries, encode::delivery);
        // It ends by itself only when the store closes, and that happens when the server stops.
        let end = stream::once(async { Err(ErrorResponse::stopping().into()) });
        Ok(Response::new(followed.chain(end).boxed()))
    }

    async fn head(&self, _: Request<wire::HeadRequest>) -> Answer<wire::HeadResponse> {
        let position = self.answer(self.shared.store().head()).await?.get();
        Ok(Response::new(wire::HeadResponse { position }))
    }

    async fn state(&self, request: Request<wire::StateRequest>) -> Answer<wire::StateResponse> {
        let stream = name(request.into_inner().stream)?;
        let state = self
            .answer(self.shared.store().stream_state(stream))
            .await?;
        Ok(Response::new(encode::state(&state)))
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Answer<wire::Appended> {
        let delete = decode::delete(request.into_inner())?;
        let store = self.shared.store();
        let deleted = self
            .finish(async move { store.delete(delete).await })
            .await?;
        Ok(Response::new(encode::deleted(&deleted)))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Answer<Self::ListStream> {
        let list = decode::list(request.into_inner())?;
        let infos = self.shared.store().streams(list);
        Ok(Self::messages(infos, |infos| encode::listing(infos)))
    }

    async fn stats(&self, _: Request<wire::StatsRequest>) -> Answer<wire::StatsResponse> {
        let stats = self.answer(self.shared.store().stats()).await?;
        Ok(Response::new(encode::stats(stats)))
    }

    async fn scavenge(
        &self,
        request: Request<wire::ScavengeRequest>,
    ) -> Answer<Self::ScavengeStream> {
        let asked = request.into_inner().bytes_per_second;
        let messages = self
            .shared
            .scavenges
            .run(asked)
            .map_err(ErrorResponse::from)?;
        let messages = self.followed(messages, |progress| vec![encode::progress(progress)]);
        Ok(Response::new(messages))
    }

    async fn load_snapshot(
        &self,
        request: Request<wire::LoadSnapshotRequest>,
    ) -> Answer<wire::LoadSnapshotResponse> {
        let stream = name(request.into_inner().stream)?;
        let snapshots = self.shared.store().snapshots();
        let snapshot = self.answer(snapshots.load(&stream)).await?;
        Ok(Response::new(wire::LoadSnapshotResponse {
            snapshot: snapshot.map(encode::snapshot),
        }))
    }

    async fn save_snapshot(
        &self,
        request: Request<wire::SaveSnapshotRequest>,
    ) -> Answer<wire::SaveSnapshotResponse> {
        let wire::SaveSnapshotRequest { stream, snapshot } = request.into_inner();
        let (stream, snapshot) = (name(stream)?, decode::snapshot(snapshot)?);
        let snapshots = self.shared.store().snapshots();
        self.answer(snapshots.save(&stream, snapshot)).await?;
        Ok(Response::new(wire::SaveSnapshotResponse {}))
    }

    async fn remove_snapshot(
        &self,
        request: Request<wire::RemoveSnapshotRequest>,
    ) -> Answer<wire::RemoveSnapshotResponse> {
        let stream = name(request.into_inner().stream)?;
        let snapshots = self.shared.store().snapshots();
        self.answer(snapshots.remove(&stream)).await?;
        Ok(Response::new(wire::RemoveSnapshotResponse {}))
    }

    async fn claim_consumer(
        &self,
        request: Request<wire::ClaimConsumerRequest>,
    ) -> Answer<wire::ClaimConsumerResponse> {
        consumers::claim(&self.shared, request.into_inner()).await
    }

    async fn renew_claim(
        &self,
        request: Request<wire::RenewClaimRequest>,
    ) -> Answer<wire::RenewClaimResponse> {
        consumers::renew(&self.shared, request.into_inner()).await
    }

    async fn release_claim(
        &self,
        request: Request<wire::ReleaseClaimRequest>,
    ) -> Answer<wire::ReleaseClaimResponse> {
        consumers::release(&self.shared, request.into_inner()).await
    }

    async fn advance_consumer(
        &self,
        request: Request<wire::AdvanceConsumerRequest>,
    ) -> Answer<wire::AdvanceConsumerResponse> {
        consumers::advance(&self.shared, request.into_inner()).await
    }

    async fn due_timers(
        &self,
        request: Request<wire::DueTimersRequest>,
    ) -> Answer<wire::DueTimersResponse> {
        consumers::due_timers(&self.shared, request.into_inner()).await
    }

    async fn list_parked(
        &self,
        request: Request<wire::ListParkedRequest>,
    ) -> Answer<wire::ListParkedResponse> {
        consumers::list_parked(&self.shared, request.into_inner()).await
    }

    async fn resolve_parked(
        &self,
        request: Request<wire::ResolveParkedRequest>,
    ) -> Answer<wire::ResolveParkedResponse> {
        consumers::resolve(&self.shared, request.into_inner()).await
    }

    async fn get_consumer(
        &self,
        request: Request<wire::GetConsumerRequest>,
    ) -> Answer<wire::GetConsumerResponse> {
        consumers::get(&self.shared, request.into_inner()).await
    }

    async fn list_consumers(
        &self,
        request: Request<wire::ListConsumersRequest>,
    ) -> Answer<wire::ListConsumersResponse> {
        consumers::list(&self.shared, request.into_inner()).await
    }

    async fn reset_consumer(
        &self,
        request: Request<wire::ResetConsumerRequest>,
    ) -> Answer<wire::ResetConsumerResponse> {
        consumers::reset(&self.shared, request.into_inner()).await
    }

    async fn remove_consumer(
        &self,
        request: Request<wire::RemoveConsumerRequest>,
    ) -> Answer<wire::RemoveConsumerResponse> {
        consumers::remove(&self.shared, request.into_inner()).await
    }
}
