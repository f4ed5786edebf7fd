//! The members of the cluster: this server alone, as its leader.
//!
//! **Owns:** the one member. **Does not know:** others; there are none.

use std::{sync::Arc, time::SystemTime};

use leftfold_model::EventId;
use leftfold_proto::event_store::client::{
    Empty,
    gossip::{ClusterInfo, EndPoint, MemberInfo, gossip_server, member_info::VNodeState},
};
use tonic::{Request, Response, Status, async_trait};

use super::event::{self, UuidFormat};
use crate::{clock, state::ServerState};

/// The service.
#[derive(Debug)]
pub(super) struct Gossip(pub(super) Arc<ServerState>);

#[async_trait]
impl gossip_server::Gossip for Gossip {
    async fn read(&self, request: Request<Empty>) -> Result<Response<ClusterInfo>, Status> {
        let now = clock::now().duration_since(SystemTime::UNIX_EPOCH);
        // Hundreds of nanoseconds since the year 1, as these clients count.
        let ticks = now.map_or(0, |since| since.as_nanos() / 100) + 621_355_968_000_000_000;
        let id = EventId::from_bytes(*self.0.instance.as_bytes());
        let member = MemberInfo {
            instance_id: Some(event::id_to_wire(id, UuidFormat::Text)),
            time_stamp: i64::try_from(ticks).unwrap_or(i64::MAX),
            state: VNodeState::Leader.into(),
            is_alive: true,
            http_end_point: Some(self.end_point(&request)),
        };
        Ok(Response::new(ClusterInfo {
            members: vec![member],
        }))
    }
}

impl Gossip {
    /// Returns where clients connect: the advertised host, or the address they used.
    fn end_point<T>(&self, request: &Request<T>) -> EndPoint {
        let shared = &self.0;
        let own = (shared.address.ip().to_string(), shared.address.port());
        let advertised = shared.settings.advertised_host.as_str();
        let (address, port) = if advertised.is_empty() {
            came_by(request).unwrap_or(own)
        } else {
            (advertised.to_owned(), own.1)
        };
        EndPoint {
            address,
            port: port.into(),
        }
    }
}

/// Returns the host and port that the client used.
fn came_by<T>(request: &Request<T>) -> Option<(String, u16)> {
    let uri = request.extensions().get::<RequestUri>()?;
    let authority = uri.0.authority()?;
    Some((authority.host().to_owned(), authority.port_u16()?))
}

/// The address of a request.
#[derive(Debug, Clone)]
struct RequestUri(http::Uri);

/// Stores the URI of a request in its extensions, because it is not passed on otherwise.
pub(super) fn capture_uri<B>(mut request: http::Request<B>) -> http::Request<B> {
    let came_by = RequestUri(request.uri().clone());
    request.extensions_mut().insert(came_by);
    request
}
