//! Listings of streams, and the progress of scavenges.
//!
//! **Owns:** streaming responses that are neither reads nor subscriptions. **Does not know:** connections.
//! **Invariants:** a listing resumes after the last name on a new connection; a scavenge does not resume, because a lost
//! connection stops it.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{TryStreamExt, stream};
use leftfold_proto::leftfold::v1 as wire;
use leftfold_store::{ListStreams, ReadError, Scavenge, ScavengeProgress, StreamInfo};
use tonic::Streaming;

use crate::{
    backoff::Backoff,
    call::ConnectionPool,
    connection::StoreStub,
    decode,
    status::{self, StatusKind},
};

/// Maximum attempts of a listing in a row that return no name.
const ATTEMPTS_MAX: u32 = 16;

/// Lists the server's streams.
pub(crate) fn list(
    pool: Arc<ConnectionPool>,
    list: ListStreams,
) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
    let walk = Listing {
        backoff: Backoff::of(&pool.options),
        pool,
        list,
        incoming: None,
    };
    Box::pin(stream::try_unfold(walk, |mut walk| async move {
        let infos = walk.next().await?;
        Ok(infos.map(|infos| (infos, walk)))
    }))
}

struct Listing {
    pool: Arc<ConnectionPool>,
    /// What is left to list.
    list: ListStreams,
    incoming: Option<Streaming<wire::Listing>>,
    backoff: Backoff,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<Vec<StreamInfo>>, ReadError> {
        loop {
            let Some(incoming) = &mut self.incoming else {
                self.incoming = Some(self.open().await?);
                continue;
            };
            let said = match incoming.message().await {
                Ok(None) => return Ok(None),
                Ok(Some(message)) => {
                    let infos = decode::listing(message).map_err(status::unreadable)?;
                    self.backoff.reset();
                    self.advance(&infos);
                    return Ok(Some(infos));
                }
                Err(status) => StatusKind::of(status, &self.pool.address),
            };
            self.incoming = None;
            match said {
                StatusKind::Store(_) | StatusKind::Rejected(_) => {
                    return Err(status::to_read_error(said));
                }
                _ if self.backoff.attempts() >= ATTEMPTS_MAX => {
                    return Err(status::to_read_error(said));
                }
                _ => {}
            }
            self.backoff.wait().await;
        }
    }

    async fn open(&self) -> Result<Streaming<wire::Listing>, ReadError> {
        let after = self.list.after.as_ref();
        let request = wire::ListRequest {
            prefix: self.list.prefix.clone(),
            after: after.map(ToString::to_string).unwrap_or_default(),
            limit: self.list.limit,
        };
        let ask = |mut calls: StoreStub| {
            let request = request.clone();
            async move { calls.list(request).await }
        };
        self.pool.read_with_retry(ask).await
    }

    fn advance(&mut self, infos: &[StreamInfo]) {
        if let Some(last) = infos.last() {
            self.list.after = Some(last.stream.clone());
        }
        if let Some(limit) = &mut self.list.limit {
            *limit = limit.saturating_sub(infos.len() as u64);
        }
    }
}

/// Reclaims space on the server.
pub(crate) fn scavenge(
    pool: Arc<ConnectionPool>,
    scavenge: Scavenge,
) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
    let request = wire::ScavengeRequest {
        bytes_per_second: scavenge.bytes_per_second,
    };
    let begin = async move {
        // A server that did not answer may have begun; dropping the call stopped it.
        let ask = |mut calls: StoreStub| async move { calls.scavenge(request).await };
        let incoming = pool.read_with_retry(ask).await?;
        let progress = stream::try_unfold(incoming, move |mut incoming| {
            let address = pool.address.clone();
            async move {
                match incoming.message().await {
                    Ok(Some(progress)) => Ok(Some((decode::progress(&progress), incoming))),
                    Ok(None) => Ok(None),
                    Err(status) => Err(status::to_read_error(StatusKind::of(status, &address))),
                }
            }
        });
        Ok(progress)
    };
    Box::pin(stream::once(begin).try_flatten())
}
