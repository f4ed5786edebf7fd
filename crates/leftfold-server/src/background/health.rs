//! Health checks for orchestrators, over gRPC and HTTP.
//!
//! **Owns:** [`check`], and the gRPC health service. **Does not know:** what the other services do.
//! **Invariants:** every service of this server has a status; each check calls the store, with a timeout; once the server is told
//! to end, every status is `NOT_SERVING`; an open watch does not delay the shutdown.

use std::{sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use leftfold_store::ReadError;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer, SERVICE_NAME},
};

use crate::{
    call::{self, QueryError},
    protocol::{GrpcRoutes, methods},
    state::ServerState,
};

/// Timeout for the store's answer to a check: orchestrators have short timeouts themselves.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval between checks of the store on behalf of open watches.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Checks that the server accepts requests, is to go on doing so, and that the store works.
pub(crate) async fn check(shared: &ServerState) -> Result<Result<(), ReadError>, QueryError> {
    if shared.draining.is_cancelled() {
        return Err(QueryError::ShuttingDown);
    }
    call::with_timeout(shared, PATIENCE, shared.unguarded_store().check()).await
}

/// Registers the health service.
pub(crate) fn register(services: &mut GrpcRoutes, shared: &Arc<ServerState>) {
    services.add(HealthServer::new(HealthService(Arc::clone(shared))));
}

/// The service.
struct HealthService(Arc<ServerState>);

fn known(request: &Request<HealthCheckRequest>) -> Result<(), Status> {
    let service = request.get_ref().service.as_str();
    // The empty name is the server as a whole. Health has no health of its own.
    let known = methods::service(service).is_some_and(|known| known.name != SERVICE_NAME);
    if service.is_empty() || known {
        return Ok(());
    }
    Err(Status::not_found(format!(
        "{service:?} is no service of this server"
    )))
}

/// Returns the status of all services, which is that of the store.
async fn status(shared: &ServerState) -> ServingStatus {
    match check(shared).await {
        Ok(Ok(())) => ServingStatus::Serving,
        _ => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[async_trait]
impl Health for HealthService {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request)?;
        Ok(Response::new(response(status(&self.0).await)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        known(&request)?;
        let watched = (Arc::clone(&self.0), None);
        let changes = stream::unfold(watched, |(shared, sent)| async move {
            let is = changed(&shared, sent).await?;
            Some((Ok(response(is)), (shared, Some(is))))
        });
        Ok(Response::new(changes.boxed()))
    }
}

/// Waits for a status that differs from the last one sent; `None` once the shutdown was sent.
async fn changed(shared: &ServerState, sent: Option<ServingStatus>) -> Option<ServingStatus> {
    loop {
        let is = status(shared).await;
        if sent != Some(is) {
            return Some(is);
        }
        if shared.stopping.is_cancelled() {
            return None;
        }
        let drains = shared.draining.is_cancelled();
        tokio::select! {
            () = shared.stopping.cancelled() => {}
            () = shared.draining.cancelled(), if !drains => {}
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
}
