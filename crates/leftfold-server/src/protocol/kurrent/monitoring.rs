//! Statistics for clients that monitor the server.
//!
//! **Owns:** `Stats`. **Does not know:** what the statistics mean.

use std::{sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use leftfold_proto::event_store::client::monitoring::{StatsReq, StatsResp, monitoring_server};
use tonic::{Request, Response, Status, async_trait};

use super::status;
use crate::state::ServerState;

/// Minimum interval between two messages of statistics.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// The service.
#[derive(Debug)]
pub(super) struct Monitoring(pub(super) Arc<ServerState>);

#[async_trait]
impl monitoring_server::Monitoring for Monitoring {
    type StatsStream = BoxStream<'static, Result<StatsResp, Status>>;

    async fn stats(
        &self,
        request: Request<StatsReq>,
    ) -> Result<Response<Self::StatsStream>, Status> {
        let every = Duration::from_millis(request.into_inner().refresh_time_period_in_ms);
        let every = every.max(EVERY_MIN);
        let shared = Arc::clone(&self.0);
        let figures = stream::unfold((shared, true), move |(shared, first)| async move {
            if !first {
                let stopping = shared.stopping.cancelled();
                if tokio::time::timeout(every, stopping).await.is_ok() {
                    return None;
                }
            }
            Some((figures(&shared).await, (shared, false)))
        });
        Ok(Response::new(figures.boxed()))
    }
}

async fn figures(shared: &ServerState) -> Result<StatsResp, Status> {
    let stats = shared.store().stats().await.map_err(status::of_read)?;
    let mut all = std::collections::HashMap::new();
    let mut tell = |name: &str, value: String| all.insert(format!("leftfold-{name}"), value);
    tell("events", stats.events.to_string());
    tell("head", stats.head.to_string());
    for (name, value) in stats.details {
        tell(&name.replace('_', "-"), value);
    }
    tell(
        "uptime-seconds",
        shared.started.elapsed().as_secs().to_string(),
    );
    Ok(StatsResp { stats: all })
}
