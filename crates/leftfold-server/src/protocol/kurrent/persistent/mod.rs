//! The service `PersistentSubscriptions`: groups of competing consumers.
//!
//! **Owns:** its methods. **Does not know:** how groups work; `crate::groups` does.
//! **Invariants:** each error has the trailers that clients look for; a call of a consumer never ends without a status.
//! **Reading order:** `request`, `session`, `info`.

mod info;
mod request;
mod session;

use std::sync::Arc;

use futures_core::stream::BoxStream;
use leftfold_proto::event_store::client::{
    Empty,
    persistent_subscriptions::{
        CreateReq, CreateResp, DeleteReq, DeleteResp, GetInfoReq, GetInfoResp, ListReq, ListResp,
        ReadReq, ReadResp, ReplayParkedReq, ReplayParkedResp, UpdateReq, UpdateResp,
        list_req::{self, options::ListOption},
        persistent_subscriptions_server,
        replay_parked_req::options::StopAtOption,
    },
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::status;
use crate::{
    call,
    groups::{GroupCatalog, GroupDefinition, GroupError, GroupSource, ParkedMessages},
    state::ServerState,
};

/// The header of a client that wants the server that acts for a group.
const REQUIRES_LEADER: &str = "requires-leader";

/// The service.
#[derive(Debug)]
pub(super) struct PersistentSubscriptions(pub(super) Arc<ServerState>);

impl PersistentSubscriptions {
    /// The groups as the request at hand may see and change them.
    fn catalog(&self) -> GroupCatalog {
        GroupCatalog::new(self.0.store())
    }

    /// Carries out a change to its end, also when its client is gone.
    async fn change<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, GroupError>> + Send + 'static,
    ) -> Result<T, Status> {
        let deadline = call::deadline(&self.0);
        let finished = call::run_to_completion(&self.0, deadline, work).await;
        finished
            .map_err(status::unfinished)?
            .map_err(status::of_group)
    }

    async fn definition(
        &self,
        catalog: &GroupCatalog,
        (source, name): (GroupSource, String),
    ) -> Result<GroupDefinition, Status> {
        let id = request::id(source, name)?;
        catalog.get(&id).await.map_err(status::of_group)
    }
}

#[async_trait]
impl persistent_subscriptions_server::PersistentSubscriptions for PersistentSubscriptions {
    type ReadStream = BoxStream<'static, Result<ReadResp, Status>>;

    async fn create(&self, request: Request<CreateReq>) -> Result<Response<CreateResp>, Status> {
        let (id, settings, filter) = request::create(request.into_inner())?;
        let catalog = self.catalog();
        let create = async move { catalog.create(&id, settings, filter).await };
        self.change(create).await?;
        Ok(Response::new(CreateResp {}))
    }

    async fn update(&self, request: Request<UpdateReq>) -> Result<Response<UpdateResp>, Status> {
        let (id, settings) = request::update(request.into_inner())?;
        let catalog = self.catalog();
        let update = async move { catalog.update(&id, settings).await };
        self.change(update).await?;
        Ok(Response::new(UpdateResp {}))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        let options = request.into_inner().options;
        let options = options.ok_or_else(|| status::missing("options"))?;
        let source = request::source_to_delete(options.stream_option)?;
        let id = request::id(source, options.group_name)?;
        let catalog = self.catalog();
        let delete = async move { catalog.delete(&id).await };
        self.change(delete).await?;
        Ok(Response::new(DeleteResp {}))
    }

    async fn read(
        &self,
        request: Request<Streaming<ReadReq>>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let answers = session::answers(&self.0, request).await?;
        Ok(Response::new(answers))
    }

    async fn get_info(
        &self,
        request: Request<GetInfoReq>,
    ) -> Result<Response<GetInfoResp>, Status> {
        let requires_leader = request.metadata().get(REQUIRES_LEADER);
        let requires_leader = requires_leader.is_some_and(|value| value == "true");
        let options = request.into_inner().options;
        let options = options.ok_or_else(|| status::missing("options"))?;
        let source = request::source_of_info(options.stream_option)?;
        let catalog = self.catalog();
        let group = (source, options.group_name);
        let definition = self.definition(&catalog, group).await?;
        let state = self.0.groups.state(&catalog, &definition).await;
        let state = state.map_err(status::of_group)?;
        if let Some(owner) = state.owner_elsewhere.as_ref().filter(|_| requires_leader) {
            return Err(status::not_leader(owner));
        }
        let info = info::of(&definition, state);
        Ok(Response::new(GetInfoResp {
            subscription_info: Some(info),
        }))
    }

    async fn replay_parked(
        &self,
        request: Request<ReplayParkedReq>,
    ) -> Result<Response<ReplayParkedResp>, Status> {
        let options = request.into_inner().options;
        let options = options.ok_or_else(|| status::missing("options"))?;
        let count = match options.stop_at_option {
            Some(StopAtOption::StopAt(at)) => Some(u64::try_from(at).map_err(|_| {
                Status::invalid_argument(format!(
                    "stop_at is negative: {at}; expected the number of parked messages to replay"
                ))
            })?),
            Some(StopAtOption::NoLimit(_)) | None => None,
        };
        let source = request::source_to_replay(options.stream_option)?;
        let catalog = self.catalog();
        let group = (source, options.group_name);
        let definition = self.definition(&catalog, group).await?;
        let store = Arc::clone(catalog.event_store());
        let groups = Arc::clone(&self.0.groups);
        let replay = async move {
            let parked = ParkedMessages::new(store, &definition)?;
            parked.replay(count).await?;
            groups.look_at_parked(&definition.id).await;
            Ok(())
        };
        self.change(replay).await?;
        Ok(Response::new(ReplayParkedResp {}))
    }

    async fn list(&self, request: Request<ListReq>) -> Result<Response<ListResp>, Status> {
        let options = request.into_inner().options;
        let of = match options.and_then(|options| options.list_option) {
            Some(ListOption::ListForStream(list_req::StreamOption { stream_option })) => {
                Some(request::source_to_list(stream_option)?)
            }
            Some(ListOption::ListAllSubscriptions(_)) => None,
            None => return Err(status::missing("list_option")),
        };
        let catalog = self.catalog();
        let mut groups = catalog.list().await.map_err(status::of_group)?;
        if let Some(source) = &of {
            groups.retain(|group| group.id.source == *source);
            if groups.is_empty() {
                return Err(status::group_not_found(source, ""));
            }
        }
        let mut subscriptions = Vec::with_capacity(groups.len());
        for definition in &groups {
            let state = self.0.groups.state(&catalog, definition).await;
            subscriptions.push(info::of(definition, state.map_err(status::of_group)?));
        }
        Ok(Response::new(ListResp { subscriptions }))
    }

    async fn restart_subsystem(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.0.groups.restart().await;
        Ok(Response::new(Empty {}))
    }
}
