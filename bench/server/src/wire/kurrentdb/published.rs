//! KurrentDB's published client.
//!
//! **Owns:** events in its words. **Does not know:** how the other client does it.
//! **Invariants:** one `batch_append` call for all callers.

use futures_util::future::BoxFuture;
use kurrentdb::{
    BatchAppendClient, BatchAppendOptions, Client, EventData, ReadAllOptions, StreamState,
};
use uuid::Uuid;

use super::Call;
use crate::event::{KIND, moment, payload};

struct Published {
    client: Client,
    appends: BatchAppendClient,
}

pub(crate) async fn connect(port: u16) -> anyhow::Result<impl Call> {
    let settings = format!("kurrentdb://127.0.0.1:{port}?tls=false").parse()?;
    let client = Client::new(settings).map_err(|error| anyhow::anyhow!("{error}"))?;
    let appends = client.batch_append(&BatchAppendOptions::default()).await?;
    Ok(Published { client, appends })
}

impl Call for Published {
    fn append(&self, caller: u64, events: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        let data = payload(moment());
        let event = || EventData::binary(KIND, data.clone().into()).id(Uuid::new_v4());
        let events = (0..events).map(|_| event()).collect();
        Box::pin(async move {
            let stream = format!("caller-{caller}");
            let appended = self
                .appends
                .append_to_stream(stream, StreamState::Any, events);
            appended.await?;
            Ok(())
        })
    }

    fn read_all(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async {
            let mut read = self.client.read_all(&ReadAllOptions::default()).await?;
            let mut events = 0;
            while read.next().await?.is_some() {
                events += 1;
            }
            Ok(events)
        })
    }
}
