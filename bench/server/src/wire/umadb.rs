//! UmaDB's published client.
//!
//! **Owns:** events and conditions in its words. **Does not know:** which server answers.
//! **Invariants:** events have no id of the caller's, as in its own examples.

use futures_util::{StreamExt, future::BoxFuture};
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
use umadb_dcb::{DcbAppendCondition, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem};

use super::{Connection, Moments};
use crate::event::{Batch, Condition, Selection, moment_of};

struct Umadb(AsyncUmaDbClient);

pub(super) async fn connect(port: u16) -> anyhow::Result<impl Connection> {
    let client = UmaDbClient::new(format!("http://127.0.0.1:{port}"));
    Ok(Umadb(client.connect_async().await?))
}

fn query(selection: Selection) -> DcbQuery {
    DcbQuery::new().item(match selection {
        Selection::Tag(tag) => DcbQueryItem::new().tags([tag]),
        Selection::Kind(kind) => DcbQueryItem::new().types([kind]),
    })
}

fn condition(condition: Condition) -> DcbAppendCondition {
    DcbAppendCondition::new(query(condition.on)).after(condition.after)
}

impl Connection for Umadb {
    fn append(&self, batch: Batch) -> BoxFuture<'_, anyhow::Result<u64>> {
        let payload = batch.payload();
        let event = |tag| {
            DcbEvent::new()
                .event_type(batch.kind)
                .tags([tag])
                .data(payload.clone())
        };
        let events: Vec<_> = batch.tags.into_iter().map(event).collect();
        let condition = batch.condition.map(condition);
        Box::pin(async move { Ok(self.0.append(events, condition, None).await?) })
    }

    fn head(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async { Ok(self.0.head().await?.unwrap_or_default()) })
    }

    fn read(&self, tag: Option<String>) -> BoxFuture<'_, anyhow::Result<u64>> {
        let query = tag.map(|tag| query(Selection::Tag(tag)));
        Box::pin(async move {
            let mut read = self.0.read(query, None, false, None).await?;
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
            let events = self.0.subscribe(None, Some(after)).await?;
            Ok(events.map(|event| moment_of(&event?.event.data)).boxed())
        })
    }
}
