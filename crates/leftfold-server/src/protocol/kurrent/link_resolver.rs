//! Resolving link events, which stand for other events.
//!
//! **Owns:** what a link is, and finding its target. **Does not know:** the request.
//! **Invariants:** a link without a target is returned alone.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{Read, RecordedEvent, Revision, StreamName};
use leftfold_proto::event_store::client::streams::ReadResp;
use leftfold_store::{EventStore, ReadError};
use tonic::Status;

use super::{
    encode::EventEncoder,
    request::{Answers, ReadOptions},
    status,
};
use crate::state::ServerState;

/// The type of links.
const LINK: &str = "$>";

/// The resolver of links for one client.
#[derive(Debug)]
pub(super) struct LinkResolver {
    store: Arc<dyn EventStore>,
    writer: EventEncoder,
    resolve_links: bool,
}

impl LinkResolver {
    pub(super) fn new(store: &Arc<dyn EventStore>, form: ReadOptions) -> Self {
        Self {
            store: Arc::clone(store),
            writer: EventEncoder::new(form.ids),
            resolve_links: form.resolve_links,
        }
    }

    /// Encodes one event, resolving it if it is a link.
    pub(super) async fn one(&mut self, event: &RecordedEvent) -> Result<ReadResp, Status> {
        if !self.resolve_links || event.event_type.as_str() != LINK {
            return Ok(self.writer.answer(Some(event), None));
        }
        let target = target(&*self.store, event).await;
        let target = target.map_err(status::of_read)?;
        Ok(self.writer.answer(target.as_ref(), Some(event)))
    }
}

/// Encodes batches of events, resolving links.
pub(super) fn shown(
    shared: &ServerState,
    batches: impl futures_core::Stream<Item = Result<Vec<RecordedEvent>, Status>> + Send + 'static,
    form: ReadOptions,
) -> Answers {
    let begin = (LinkResolver::new(&shared.store(), form), batches.boxed());
    let answers = stream::try_unfold(begin, |(mut showing, mut batches)| async move {
        let Some(batch) = batches.try_next().await? else {
            return Ok::<_, Status>(None);
        };
        let mut answers = Vec::with_capacity(batch.len());
        for event in &batch {
            answers.push(Ok(showing.one(event).await?));
        }
        Ok(Some((stream::iter(answers), (showing, batches))))
    });
    answers.try_flatten().boxed()
}

async fn target(
    store: &dyn EventStore,
    link: &RecordedEvent,
) -> Result<Option<RecordedEvent>, ReadError> {
    let Some((stream, revision)) = place(&link.data) else {
        return Ok(None);
    };
    let read = Read::stream(stream).from_revision(revision).limit(1);
    match store.read(read).try_next().await {
        Ok(batch) => Ok(batch
            .and_then(|batch| batch.events.into_iter().next())
            .filter(|event| event.revision == revision)),
        Err(ReadError::StreamDeleted { .. } | ReadError::AccessDenied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Parses the target of a link: `revision@stream`.
fn place(data: &[u8]) -> Option<(StreamName, Revision)> {
    let (revision, stream) = std::str::from_utf8(data).ok()?.split_once('@')?;
    let revision = revision.parse().ok().map(Revision::new)?;
    Some((StreamName::new(stream).ok()?, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_revision_and_stream() {
        let (stream, revision) = place(b"7@a@b-1").unwrap();
        assert_eq!((stream.as_str(), revision.get()), ("a@b-1", 7));
        for broken in [&b"7"[..], b"@a", b"x@a", b"7@", b"\xff@a"] {
            assert!(place(broken).is_none());
        }
    }
}
