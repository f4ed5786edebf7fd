//! Links: events that stand for others.
//!
//! **Owns:** what a link is, and finding what it leads to. **Does not know:** who asked.
//! **Invariants:** a link that leads nowhere is shown alone.

use std::{future::Future, pin::Pin, sync::Arc};

use futures_util::{FutureExt, StreamExt, TryStreamExt, future};
use leftfold_model::{Read, RecordedEvent, Revision, StreamName};
use leftfold_proto::event_store::client::streams::ReadResp;
use leftfold_store::{EventStore, ReadError};
use tonic::Status;

use super::{
    errors, event,
    read::{Answers, Form},
};
use crate::shared::Shared;

/// The type of links.
const LINK: &str = "$>";

/// Events as they are to be shown.
pub(super) fn shown(
    shared: &Shared,
    events: impl futures_core::Stream<Item = Result<RecordedEvent, Status>> + Send + 'static,
    form: Form,
) -> Answers {
    let store = Arc::clone(&shared.store);
    events
        .and_then(move |event| one(&store, event, form))
        .boxed()
}

type Shown = future::Either<
    future::Ready<Result<ReadResp, Status>>,
    Pin<Box<dyn Future<Output = Result<ReadResp, Status>> + Send>>,
>;

/// One event as it is to be shown.
pub(super) fn one(store: &Arc<dyn EventStore>, event: RecordedEvent, form: Form) -> Shown {
    if !form.resolve_links || event.event_type.as_str() != LINK {
        return future::ready(Ok(event::answer(Some(event), None, form.ids))).left_future();
    }
    let store = Arc::clone(store);
    let resolved = async move {
        let target = target(&*store, &event).await;
        Ok(event::answer(
            target.map_err(errors::of_read)?,
            Some(event),
            form.ids,
        ))
    };
    resolved.boxed().right_future()
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
        Err(ReadError::StreamDeleted { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a link says: `revision@stream`.
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
