//! Data that is too large for its commit's document.
//!
//! **Owns:** the collection `payloads`: writing, reading and removing. **Does not know:** which events have one.
//! **Invariants:** a payload is durable before a commit refers to it; its id is derived from its event's place in one writer's
//! append, so it is written once; a payload without a commit belongs to an append that failed, and no read sees it.

use bytes::Bytes;
use futures_util::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Binary, Document, doc},
};
use serde::{Deserialize, Serialize};

use crate::{
    document::{EventDocument, PayloadReference, binary, to_i64},
    error::Failure,
    log::Log,
};

/// Bytes of one document of a payload. The server accepts documents up to 16 MiB.
const PART_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Part {
    #[serde(rename = "_id")]
    id: PartId,
    bytes: Binary,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PartId {
    payload: Binary,
    part: i32,
}

/// The collection of payloads.
#[derive(Debug, Clone)]
pub(crate) struct Payloads {
    log: Log,
    parts: Collection<Part>,
}

impl Payloads {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            parts: log.collection("payloads"),
            log,
        }
    }

    /// Writes the data and metadata of an event under this id.
    pub(crate) async fn write(
        &self,
        id: Binary,
        data: &Bytes,
        metadata: &Bytes,
    ) -> Result<PayloadReference, Failure> {
        let mut bytes = Vec::with_capacity(data.len() + metadata.len());
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(metadata);
        let mut parts = 0;
        for chunk in bytes.chunks(PART_BYTES) {
            let part = Part {
                id: PartId {
                    payload: id.clone(),
                    part: parts,
                },
                bytes: binary(chunk),
            };
            match self
                .log
                .within(self.parts.insert_one(&part).into_future())
                .await
            {
                Ok(_) => {}
                // An insert whose answer was lost: the id is never used for anything else.
                Err(failure) if failure.is_duplicate_key() => {}
                Err(failure) => return Err(failure),
            }
            parts += 1;
        }
        Ok(PayloadReference {
            id,
            parts,
            data_bytes: to_i64(data.len() as u64),
            metadata_bytes: to_i64(metadata.len() as u64),
            checksum: i64::from(crc32c::crc32c(&bytes)),
        })
    }

    /// Returns the event with its data and metadata; `None` if a scavenge removed them since.
    pub(crate) async fn restore(
        &self,
        mut event: EventDocument,
    ) -> Result<Option<EventDocument>, Failure> {
        let Some(reference) = event.payload.take() else {
            return Ok(Some(event));
        };
        let finding = self
            .parts
            .find(doc! { "_id": { "$in": keys(&reference) } })
            .into_future();
        let mut cursor = self.log.within(finding).await?;
        let mut found = Vec::new();
        while let Some(part) = self.log.within(cursor.try_next()).await? {
            found.push(part);
        }
        found.sort_by_key(|part| part.id.part);
        let parts = found.len();
        let bytes: Vec<_> = found
            .iter()
            .map(|part| part.bytes.bytes.as_slice())
            .collect();
        let mut bytes = bytes.concat();
        if parts == 0 {
            return Ok(None);
        }
        let damaged = || {
            Failure::Damaged(format!(
                "payload of the event at position {}: its {parts} parts of {} do not give its checksum",
                event.position, reference.parts
            ))
        };
        let data_bytes = usize::try_from(reference.data_bytes).map_err(|_| damaged())?;
        if i64::from(crc32c::crc32c(&bytes)) != reference.checksum || data_bytes > bytes.len() {
            return Err(damaged());
        }
        event.metadata = binary(bytes.split_off(data_bytes));
        event.data = binary(bytes);
        Ok(Some(event))
    }

    /// Removes payloads.
    pub(crate) async fn remove(&self, references: &[PayloadReference]) -> Result<(), Failure> {
        if references.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = references.iter().flat_map(keys).collect();
        let removing = self
            .parts
            .delete_many(doc! { "_id": { "$in": keys } })
            .into_future();
        self.log.within(removing).await.map(drop)
    }
}

/// The whole keys of a payload's parts. A search by a field within the keys would read the whole collection.
fn keys(reference: &PayloadReference) -> Vec<Document> {
    let key = |part: i32| doc! { "payload": &reference.id, "part": part };
    (0..reference.parts).map(key).collect()
}
