//! Reads of the streams of links that are computed.
//!
//! **Owns:** the answers of such reads. **Does not know:** what an index holds.
//! **Invariants:** an index that holds nothing is a stream that is not there.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::{StreamExt, TryStreamExt, future, stream};
use leftfold_model::{Direction, Position, Read, Revision, StreamName};
use leftfold_proto::event_store::client::streams::{
    ReadResp,
    read_resp::{Content as Answer, StreamNotFound},
};
use tonic::Status;

use super::{
    event,
    link_resolver::LinkResolver,
    request::{Answers, ReadOptions, StartFrom},
    status,
};
use crate::{state::ServerState, system_index::SystemIndex};

/// The answer to a read of a stream that is not there.
pub(super) fn not_found(name: &StreamName) -> Answers {
    let not_found = StreamNotFound {
        stream_identifier: Some(event::identifier(name)),
    };
    let content = event::content(Answer::StreamNotFound(not_found));
    stream::once(future::ready(Ok(content))).boxed()
}

/// Answers a read of an index.
pub(super) async fn read(
    shared: &ServerState,
    (name, index): (&StreamName, SystemIndex),
    (from, direction, count): (StartFrom<Revision>, Direction, u64),
    form: ReadOptions,
) -> Result<Answers, Status> {
    let (store, index) = (shared.store(), Arc::new(index));
    let newest = index.first(&store, Read::all().backwards()).await;
    let Some(newest) = newest.map_err(status::of_read)? else {
        return Ok(not_found(name));
    };
    let read = Read::all().limit(count);
    // The revision of an entry is the position of its event.
    let at = |revision: Revision| Position::new(revision.get());
    let read = match (direction, from) {
        (Direction::Forwards, StartFrom::Start) => read,
        (Direction::Forwards, StartFrom::At(revision)) => {
            read.from_position(at(revision).max(Position::FIRST))
        }
        (Direction::Forwards, StartFrom::End) => read.limit(0),
        (Direction::Backwards, StartFrom::End) => read.backwards(),
        (Direction::Backwards, StartFrom::At(revision)) => {
            let last = at(revision).min(newest.link.position);
            read.from_position(last).backwards()
        }
        (Direction::Backwards, StartFrom::Start) => {
            let oldest = index.first(&store, Read::all()).await;
            let oldest = oldest.map_err(status::of_read)?;
            let first = oldest.map_or(Position::FIRST, |oldest| oldest.link.position);
            read.from_position(first).backwards()
        }
    };
    let last = newest.link.revision;
    let entries = index.read(&store, read).map_err(status::of_read);
    let begin = (LinkResolver::new(&store, form), entries.boxed());
    let shown = stream::try_unfold(begin, |(mut showing, mut entries)| async move {
        let Some(batch) = entries.try_next().await? else {
            return Ok::<_, Status>(None);
        };
        let answers: Vec<_> = batch.iter().map(|entry| Ok(showing.entry(entry))).collect();
        Ok(Some((stream::iter(answers), (showing, entries))))
    });
    let seen = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&seen);
    let counted = shown.try_flatten().inspect_ok(move |_: &ReadResp| {
        counting.fetch_add(1, Ordering::Relaxed);
    });
    let last = event::content(Answer::LastStreamPosition(last.get()));
    let at_end = stream::once(async move {
        // A read that stops at its count does not know that it stands at the end.
        let tells = form.tells_ends && seen.load(Ordering::Relaxed) < count;
        tells.then_some(Ok(last))
    });
    Ok(counted.chain(at_end.filter_map(future::ready)).boxed())
}
