//! What operators ask of the server.
//!
//! **Owns:** `StartScavenge`, `StopScavenge`, `RestartPersistentSubscriptions`, and
//! saying no to the rest. **Does not know:** how space is reclaimed.
//! **Invariants:** nobody ends the server over an open port.

use std::sync::Arc;

use leftfold_proto::event_store::client::{
    Empty,
    operations::{
        ScavengeResp, SetNodePriorityReq, StartScavengeReq, StopScavengeReq, operations_server,
        scavenge_resp::ScavengeResult,
    },
};
use tonic::{Request, Response, Status, async_trait};
use uuid::Uuid;

use super::status;
use crate::state::ServerState;

/// The service.
#[derive(Debug)]
pub(super) struct Operations(pub(super) Arc<ServerState>);

#[async_trait]
impl operations_server::Operations for Operations {
    async fn start_scavenge(
        &self,
        _: Request<StartScavengeReq>,
    ) -> Result<Response<ScavengeResp>, Status> {
        let (run, result) = match self.0.scavenges.start(None) {
            Ok(run) => (run, ScavengeResult::Started),
            Err(run) => (run, ScavengeResult::InProgress),
        };
        Ok(Response::new(ScavengeResp {
            scavenge_id: run.id.to_string(),
            scavenge_result: result.into(),
        }))
    }

    async fn stop_scavenge(
        &self,
        request: Request<StopScavengeReq>,
    ) -> Result<Response<ScavengeResp>, Status> {
        let options = request.into_inner().options;
        let scavenge_id = options
            .map(|options| options.scavenge_id)
            .unwrap_or_default();
        let stopped = scavenge_id
            .parse::<Uuid>()
            .is_ok_and(|id| self.0.scavenges.stop(id));
        if !stopped {
            return Err(status::scavenge_not_found(&scavenge_id));
        }
        Ok(Response::new(ScavengeResp {
            scavenge_id,
            scavenge_result: ScavengeResult::Stopped.into(),
        }))
    }

    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(
            "the server is ended by a signal, not over the network",
        ))
    }

    async fn merge_indexes(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(
            "index files are joined without being asked",
        ))
    }

    async fn resign_node(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(
            "this server is no member of a cluster",
        ))
    }

    async fn set_node_priority(
        &self,
        _: Request<SetNodePriorityReq>,
    ) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(
            "this server is no member of a cluster",
        ))
    }

    async fn restart_persistent_subscriptions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Empty>, Status> {
        self.0.groups.restart().await;
        Ok(Response::new(Empty {}))
    }
}
