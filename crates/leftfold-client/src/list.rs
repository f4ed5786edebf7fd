//! Listings of streams, and the progress of scavenges.
//!
//! **Owns:** answers of several messages that are neither reads nor subscriptions. **Does not know:** connections.
//! **Invariants:** a listing goes on behind the last name after a new connection; a scavenge does not, for hanging up stops it.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{TryStreamExt, stream};
use leftfold_proto::leftfold::v1 as wire;
use leftfold_store::{ListStreams, ReadError, Scavenge, ScavengeProgress, StreamInfo};
use tonic::Streaming;

use crate::{
    call::{Calls, Links},
    decode,
    failure::{self, Said},
    pause::Pauses,
};

/// How often a listing looks for a connection anew without getting a name.
const ATTEMPTS_MAX: u32 = 16;

/// Lists the server's streams.
pub(crate) fn list(
    links: Arc<Links>,
    list: ListStreams,
) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
    let walk = Walk {
        pauses: Pauses::of(&links.options),
        links,
        list,
        incoming: None,
    };
    Box::pin(stream::try_unfold(walk, |mut walk| async move {
        let infos = walk.next().await?;
        Ok(infos.map(|infos| (infos, walk)))
    }))
}

struct Walk {
    links: Arc<Links>,
    /// What is left to list.
    list: ListStreams,
    incoming: Option<Streaming<wire::Listing>>,
    pauses: Pauses,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<Vec<StreamInfo>>, ReadError> {
        loop {
            let Some(incoming) = &mut self.incoming else {
                self.incoming = Some(self.open().await?);
                continue;
            };
            let said = match incoming.message().await {
                Ok(None) => return Ok(None),
                Ok(Some(message)) => {
                    let infos = decode::listing(message).map_err(failure::unreadable)?;
                    self.pauses.reset();
                    self.take_off(&infos);
                    return Ok(Some(infos));
                }
                Err(status) => Said::of(status, &self.links.address),
            };
            self.incoming = None;
            match said {
                Said::Failure(_) | Said::NotTaken(_) => return Err(failure::unread(said)),
                _ if self.pauses.attempts() >= ATTEMPTS_MAX => return Err(failure::unread(said)),
                _ => {}
            }
            self.pauses.wait().await;
        }
    }

    async fn open(&self) -> Result<Streaming<wire::Listing>, ReadError> {
        let after = self.list.after.as_ref();
        let request = wire::ListRequest {
            prefix: self.list.prefix.clone(),
            after: after.map(ToString::to_string).unwrap_or_default(),
            limit: self.list.limit,
        };
        let ask = |mut calls: Calls| {
            let request = request.clone();
            async move { calls.list(request).await }
        };
        self.links.ask_to_read(ask).await
    }

    fn take_off(&mut self, infos: &[StreamInfo]) {
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
    links: Arc<Links>,
    scavenge: Scavenge,
) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
    let request = wire::ScavengeRequest {
        bytes_per_second: scavenge.bytes_per_second,
    };
    let begin = async move {
        // A server that did not answer may have begun; dropping the call stopped it.
        let ask = |mut calls: Calls| async move { calls.scavenge(request).await };
        let incoming = links.ask_to_read(ask).await?;
        let told = stream::try_unfold(incoming, move |mut incoming| {
            let address = links.address.clone();
            async move {
                match incoming.message().await {
                    Ok(Some(told)) => Ok(Some((decode::progress(&told), incoming))),
                    Ok(None) => Ok(None),
                    Err(status) => Err(failure::unread(Said::of(status, &address))),
                }
            }
        });
        Ok(told)
    };
    Box::pin(stream::once(begin).try_flatten())
}
