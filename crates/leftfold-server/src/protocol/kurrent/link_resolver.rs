//! Events as a client wants them: with what links lead to, or without.
//!
//! **Owns:** [`LinkResolver`]. **Does not know:** who asked; what a link is.
//! **Invariants:** a link that leads nowhere is shown alone.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::RecordedEvent;
use leftfold_proto::event_store::client::streams::ReadResp;
use leftfold_store::EventStore;
use tonic::Status;

use super::{
    encode::EventEncoder,
    request::{Answers, ReadOptions},
    status,
};
use crate::{link, state::ServerState, system_index::IndexEntry};

/// Shows events to one client.
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

    /// An entry of an index: its link, with what it leads to where links are resolved.
    pub(super) fn entry(&mut self, entry: &IndexEntry) -> ReadResp {
        if self.resolve_links {
            self.writer.answer(entry.event.as_ref(), Some(&entry.link))
        } else {
            self.writer.answer(Some(&entry.link), None)
        }
    }

    /// One event as it is to be shown.
    pub(super) async fn one(&mut self, event: &RecordedEvent) -> Result<ReadResp, Status> {
        if !self.resolve_links || !link::is_link(event) {
            return Ok(self.writer.answer(Some(event), None));
        }
        let target = link::target(&*self.store, event).await;
        let target = target.map_err(status::of_read)?;
        Ok(self.writer.answer(target.as_ref(), Some(event)))
    }
}

/// Batches of events as they are to be shown.
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
