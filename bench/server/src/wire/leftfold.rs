//! Leftfold's own client.
//!
//! **Owns:** events and conditions in its words. **Does not know:** the other clients.
//! **Invariants:** all events stand in one stream without an expected revision: the peer beside it has no streams.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use leftfold_client::{Client, ClientOptions, Credentials};
use leftfold_model::{
    Append, AppendCondition, ContentType, EventType, ExpectedRevision, NewEvent, Position, Query,
    QueryItem, Read, StreamName, Tag,
};
use leftfold_store::{EventStore, Subscription};

use super::{Connection, Moments};
use crate::{
    event::{Batch, Condition, Selection, moment_of},
    server::Access,
};

/// The stream of all events that this client appends.
pub(crate) const STREAM: &str = "everything";

struct Leftfold(Client);

pub(super) async fn connect(port: u16) -> anyhow::Result<impl Connection> {
    Ok(Leftfold(client(port).await?))
}

/// Connects to a server that may demand a key, and may be encrypted.
pub(crate) async fn connect_to(
    port: u16,
    access: Option<&Access>,
) -> anyhow::Result<Arc<dyn Connection>> {
    let Some(access) = access else {
        return Ok(Arc::new(connect(port).await?));
    };
    let address = match &access.authority {
        Some(file) => format!(
            "leftfold://localhost:{port}?tls=true&tlsCaFile={}",
            file.display()
        ),
        None => format!("leftfold://127.0.0.1:{port}"),
    };
    let options = ClientOptions::default().with_credentials(Credentials::api_key(&access.key));
    Ok(Arc::new(Leftfold(
        Client::connect_with(&address, options).await?,
    )))
}

pub(crate) async fn client(port: u16) -> anyhow::Result<Client> {
    Ok(Client::connect(&format!("leftfold://127.0.0.1:{port}")).await?)
}

fn query(selection: Selection) -> anyhow::Result<Query> {
    let item = match selection {
        Selection::Tag(tag) => QueryItem::tags([Tag::new(tag)?])?,
        Selection::Kind(kind) => QueryItem::types([EventType::new(kind)?])?,
    };
    Ok(Query::items([item])?)
}

fn condition(condition: Condition) -> anyhow::Result<AppendCondition> {
    let after = condition.after.map_or(Position::START, Position::new);
    Ok(AppendCondition::new(query(condition.on)?, after))
}

fn append(batch: Batch) -> anyhow::Result<Append> {
    let (kind, payload) = (EventType::new(batch.kind)?, batch.payload());
    let event = |tag: String| {
        let event = NewEvent::new(kind.clone(), ContentType::Binary, payload.clone());
        anyhow::Ok(event.with_tags([Tag::new(tag)?])?)
    };
    let events = batch.tags.into_iter().map(event);
    let events = events.collect::<anyhow::Result<_>>()?;
    let append = Append::to(StreamName::new(STREAM)?, ExpectedRevision::Any, events)?;
    Ok(match batch.condition {
        Some(of) => append.with_condition(condition(of)?)?,
        None => append,
    })
}

impl Connection for Leftfold {
    fn append(&self, batch: Batch) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move { Ok(self.0.append(append(batch)?).await?.last.get()) })
    }

    fn head(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async { Ok(self.0.head().await?.get()) })
    }

    fn read(&self, tag: Option<String>) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move {
            let read = match tag {
                Some(tag) => Read::query(query(Selection::Tag(tag))?),
                None => Read::all(),
            };
            let mut batches = self.0.read(read);
            let mut events = 0;
            while let Some(batch) = batches.try_next().await? {
                events += batch.events.len() as u64;
            }
            Ok(events)
        })
    }

    fn follow(&self, after: u64) -> Moments<'_> {
        let deliveries = self.0.subscribe(Subscription::after(Position::new(after)));
        let moments = deliveries.flat_map(|delivery| {
            let moments: Vec<_> = match delivery {
                Ok(delivery) => delivery
                    .events
                    .iter()
                    .map(|event| moment_of(&event.data))
                    .collect(),
                Err(error) => vec![Err(error.into())],
            };
            stream::iter(moments)
        });
        Box::pin(async { Ok(moments.boxed()) })
    }
}
