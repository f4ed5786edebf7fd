//! Appends that come in parts.
//!
//! **Owns:** [`ChunkAssembler`], the room for those that are not complete. **Does not know:** what becomes of them.
//! **Invariants:** all that are under way share the server's budget for requests; one that does not go on is given up;
//! nothing is decoded before its last byte is there.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use leftfold_model::limits::APPEND_BYTES_MAX;
use leftfold_proto::{
    leftfold::v1::{AppendChunk, AppendRequest},
    prost::Message,
};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Status, Streaming};

use super::status::ErrorResponse;
use crate::Settings;

/// Bytes of an encoded append: what the model allows, and room for numbers, checks and conditions.
const ENCODED_BYTES_MAX: usize = APPEND_BYTES_MAX + 32 * 1024 * 1024;
/// In which the budget is counted, so that it fits a semaphore.
const UNIT: usize = 1024;

/// Puts parts together.
#[derive(Debug)]
pub(super) struct ChunkAssembler {
    budget: Arc<Semaphore>,
    units: usize,
    patience: Duration,
}

impl ChunkAssembler {
    pub(super) fn new(settings: &Settings) -> Self {
        let units = (settings.in_flight_bytes_max.len() / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            budget: Arc::new(Semaphore::new(units)),
            units,
            patience: settings.request_timeout,
        }
    }

    /// The append that the parts make.
    pub(super) async fn join(
        &self,
        parts: Streaming<AppendChunk>,
    ) -> Result<AppendRequest, Status> {
        timeout(self.patience, self.gather(parts))
            .await
            .unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!(
                    "the append was not complete within {:?}; nothing was written",
                    self.patience
                )))
            })
    }

    async fn gather(&self, mut parts: Streaming<AppendChunk>) -> Result<AppendRequest, Status> {
        let Some(first) = parts.message().await? else {
            return Err(ErrorResponse::invalid("append in parts has no part").into());
        };
        let total = usize::try_from(first.total_bytes).unwrap_or(usize::MAX);
        if total > ENCODED_BYTES_MAX {
            let told =
                format!("append has {total} bytes as a message; allowed are {ENCODED_BYTES_MAX}");
            return Err(ErrorResponse::invalid(told).into());
        }
        let wanted = total.div_ceil(UNIT).min(self.units);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _room = self.budget.acquire_many(wanted).await;
        let mut bytes = BytesMut::with_capacity(total);
        let mut part = Some(first);
        while let Some(AppendChunk { bytes: more, .. }) = part {
            if bytes.len() + more.len() > total {
                let told = format!("append in parts is longer than the {total} bytes it announced");
                return Err(ErrorResponse::invalid(told).into());
            }
            bytes.extend_from_slice(&more);
            part = if bytes.len() < total {
                parts.message().await?
            } else {
                None
            };
        }
        if bytes.len() < total {
            let told = format!(
                "append in parts ended after {} of {total} bytes; nothing was written",
                bytes.len()
            );
            return Err(ErrorResponse::invalid(told).into());
        }
        AppendRequest::decode(bytes.freeze())
            .map_err(|error| ErrorResponse::invalid(error.to_string()).into())
    }
}
