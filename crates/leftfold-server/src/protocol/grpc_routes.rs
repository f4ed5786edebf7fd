//! The services of gRPC, by their names.
//!
//! **Owns:** [`GrpcRoutes`]: which of them a call is for. **Does not know:** their methods, plain HTTP.
//! **Invariants:** a call for an unknown service gets gRPC's `UNIMPLEMENTED`.
//!
//! A general router clones a service and boxes its future and its body for each call. All services here are of one kind, which
//! saves that.

use std::{collections::HashMap, convert::Infallible, fmt, sync::Arc};

use futures_core::future::BoxFuture;
use http::{Request, Response, Uri};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

/// The response of a call.
pub(crate) type GrpcFuture = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// A generated service of a contract.
pub(crate) trait GrpcService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = GrpcFuture>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = GrpcFuture>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

type Serve = dyn Fn(Request<Body>) -> GrpcFuture + Send + Sync;

/// All services of a server.
#[derive(Clone, Default)]
pub(crate) struct GrpcRoutes(HashMap<&'static str, Arc<Serve>>);

impl GrpcRoutes {
    /// Adds a service under its own name.
    pub(crate) fn add(&mut self, service: impl GrpcService) -> &mut Self {
        self.add_prepared(service, |request| request)
    }

    /// Adds a service under its own name; `prepare` changes each request before the service sees it.
    pub(crate) fn add_prepared<S: GrpcService>(
        &mut self,
        service: S,
        prepare: fn(Request<Body>) -> Request<Body>,
    ) -> &mut Self {
        // They are always ready, and copied by reference.
        let serve = move |request| service.clone().call(prepare(request));
        self.0.insert(S::NAME, Arc::new(serve));
        self
    }

    /// Adds a service under another name too, which older clients call.
    pub(crate) fn add_alias<S: GrpcService>(
        &mut self,
        name: &'static str,
        service: S,
    ) -> &mut Self {
        let serve = move |mut request: Request<Body>| {
            if let Some(uri) = renamed(request.uri(), name, S::NAME) {
                *request.uri_mut() = uri;
            }
            service.clone().call(request)
        };
        self.0.insert(name, Arc::new(serve));
        self
    }

    /// Dispatches a call to its service.
    pub(crate) fn call(&self, request: Request<Body>) -> GrpcFuture {
        let path = request.uri().path();
        let name = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        match name.and_then(|(name, _)| self.0.get(name)) {
            Some(serve) => serve(request),
            None => {
                let nothing = Status::unimplemented(format!("{path} is no call of this server"));
                Box::pin(async move { Ok(nothing.into_http()) })
            }
        }
    }
}

/// Returns the path of the method of this name in another service.
fn renamed(uri: &Uri, from: &str, to: &str) -> Option<Uri> {
    let method = uri.path().strip_prefix('/')?.strip_prefix(from)?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("/{to}{method}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

impl fmt::Debug for GrpcRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
