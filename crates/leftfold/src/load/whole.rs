//! The events of a stream's present life, for what needs each of them.
//!
//! **Owns:** [`read_whole`]. **Does not know:** what is made of the events.
//! **Invariants:** all events of the life, or an error.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt, future, stream, stream::BoxStream};
use leftfold_model::{Read, RecordedEvent, StreamName};
use leftfold_store::EventStore;

use super::{LOADS_MAX, Life, LoadError};

/// Reads the events of a stream's present life, all of them or an error.
pub(crate) async fn read_whole(
    store: Arc<dyn EventStore>,
    stream: StreamName,
) -> Result<BoxStream<'static, Result<RecordedEvent, LoadError>>, LoadError> {
    let mut loads = 1;
    loop {
        let life = Life::of(store.as_ref(), &stream).await?;
        let events = store
            .read(Read::stream(stream.clone()))
            .map_err(LoadError::Store)
            .map_ok(|batch| stream::iter(batch.events.into_iter().map(Ok::<_, LoadError>)))
            .try_flatten();
        let mut events = Box::pin(events.peekable());
        let begins = match events.as_mut().peek().await {
            Some(Ok(first)) => Ok(Some(first.revision)),
            Some(Err(_)) => Err(()),
            None => Ok(None),
        };
        let Ok(begins) = begins else {
            return Ok(events);
        };
        if life.is_whole(begins) {
            return Ok(Box::pin(without_gaps(events, life, stream)));
        }
        if loads >= LOADS_MAX || loads > 1 && !life.moved(begins) {
            return Err(life.truncated(&stream, begins));
        }
        loads += 1;
    }
}

/// Ends a read with an error where events were erased between one batch and the next, or where the last ones are not shown.
fn without_gaps(
    events: impl Stream<Item = Result<RecordedEvent, LoadError>>,
    life: Life,
    stream: StreamName,
) -> impl Stream<Item = Result<RecordedEvent, LoadError>> {
    let end = stream::once(async { None });
    let (mut next, mut failed) = (life.first, false);
    let checked = events.map(Some).chain(end).map(move |event| {
        let found = match event {
            Some(Err(error)) => {
                failed = true;
                return Some(Err(error));
            }
            Some(Ok(event)) if event.revision == next => {
                next = next.next();
                return Some(Ok(event));
            }
            Some(Ok(event)) => Some(event.revision),
            None if failed || life.last.is_none_or(|last| last < next) => return None,
            None => None,
        };
        failed = true;
        Some(Err(life.truncated(&stream, found)))
    });
    checked.filter_map(future::ready)
}
