//! tephra's published clients: the one that blocks, and the one that shares a connection.
//!
//! **Owns:** events and conditions in their words. **Does not know:** the other clients.
//! **Invariants:** the one that blocks is used by one caller at a time; it costs the least where each caller has a connection.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
};

use futures_util::{
    StreamExt,
    future::{self, BoxFuture},
};
use tephra_client::{
    AppendCondition, AsyncClient, Client, Event, EventType, Position, Query, QueryItem, SubEvent,
    Tag, Tags,
};

use super::{Connection, Moments};
use crate::event::{Batch, Condition, Selection, moment_of};

struct Blocking(Mutex<Client>);

struct Shared(AsyncClient);

pub(super) fn connect_blocking(port: u16) -> anyhow::Result<impl Connection> {
    let client = Client::connect((Ipv4Addr::LOCALHOST, port))?;
    Ok(Blocking(Mutex::new(client)))
}

pub(super) async fn connect_shared(port: u16) -> anyhow::Result<impl Connection> {
    Ok(Shared(
        AsyncClient::connect((Ipv4Addr::LOCALHOST, port)).await?,
    ))
}

fn query(selection: Selection) -> anyhow::Result<Query> {
    Ok(Query::item(match selection {
        Selection::Tag(tag) => QueryItem::with_tags(Tags::new([Tag::new(tag)?])?),
        Selection::Kind(kind) => QueryItem::of_types(vec![EventType::new(kind)?]),
    }))
}

fn condition(condition: Condition) -> anyhow::Result<AppendCondition> {
    let after = Position::new(condition.after.unwrap_or_default());
    Ok(AppendCondition::new(query(condition.on)?).after(after))
}

fn read_query(tag: Option<String>) -> anyhow::Result<Query> {
    tag.map_or_else(|| Ok(Query::all()), |tag| query(Selection::Tag(tag)))
}

fn append(batch: Batch) -> anyhow::Result<(Vec<Event>, Option<AppendCondition>)> {
    let payload = batch.payload();
    let event = |tag| Event::new(batch.kind, [tag], payload.clone());
    let events = batch.tags.into_iter().map(event);
    let events = events.collect::<Result<_, _>>()?;
    Ok((events, batch.condition.map(condition).transpose()?))
}

impl Blocking {
    fn with<T>(&self, ask: impl FnOnce(&mut Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connection for Blocking {
    fn blocks(&self) -> bool {
        true
    }

    fn append(&self, batch: Batch) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move {
            let (events, condition) = append(batch)?;
            self.with(|client| Ok(client.append(events, condition)?.last.get()))
        })
    }

    fn head(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async { self.with(|client| Ok(client.stats()?.event_count)) })
    }

    fn read(&self, tag: Option<String>) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move {
            let query = read_query(tag)?;
            self.with(|client| {
                let mut events = 0;
                for event in client.read(query, Position::ZERO, None)? {
                    event?;
                    events += 1;
                }
                Ok(events)
            })
        })
    }

    fn follow(&self, _after: u64) -> Moments<'_> {
        let refusal = "a subscription of this client would borrow its only connection";
        Box::pin(future::ready(Err(anyhow::anyhow!(refusal))))
    }
}

impl Connection for Shared {
    fn append(&self, batch: Batch) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move {
            let (events, condition) = append(batch)?;
            Ok(self.0.append(events, condition).await?.last.get())
        })
    }

    fn head(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async { Ok(self.0.stats().await?.event_count) })
    }

    fn read(&self, tag: Option<String>) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async move {
            let mut read = self.0.read(read_query(tag)?, Position::ZERO, None).await;
            let mut events = 0;
            while let Some(event) = read.next().await {
                event?;
                events += 1;
            }
            Ok(events)
        })
    }

    fn follow(&self, after: u64) -> Moments<'_> {
        Box::pin(async move {
            let all = self.0.subscribe(Query::all(), Position::new(after)).await;
            let moment = |event| {
                future::ready(match event {
                    Ok(SubEvent::Event(event)) => Some(moment_of(event.event().payload())),
                    Ok(SubEvent::CaughtUp(_)) => None,
                    Err(error) => Some(Err(anyhow::Error::from(error))),
                })
            };
            Ok(all.filter_map(moment).boxed())
        })
    }
}
