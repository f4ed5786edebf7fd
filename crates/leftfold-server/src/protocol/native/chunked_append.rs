//! Appends that arrive in chunks.
//!
//! **Owns:** [`join`]. **Does not know:** how an append is decided.
//! **Invariants:** chunks are charged as they arrive, and stay charged until the append is executed; nothing is decoded before
//! its last byte has arrived and its elements are counted.

use bytes::BytesMut;
use leftfold_model::limits::APPEND_BYTES_MAX;
use leftfold_proto::{
    leftfold::v1::{AppendChunk, AppendRequest},
    prost::Message,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Status, Streaming};

use super::status::ErrorResponse;
use crate::{
    connection::Reservation,
    protocol::{MessageScanner, message_shapes::APPEND},
};

/// Maximum bytes of an encoded append: the model's limit, and space for numbers, checks and conditions.
const ENCODED_BYTES_MAX: usize = APPEND_BYTES_MAX + 32 * 1024 * 1024;

/// An append with all of its chunks.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) request: AppendRequest,
    /// The memory it takes, held until it is executed.
    pub(super) memory: Reservation,
}

/// Joins the chunks of an append, which must arrive before the deadline.
pub(super) async fn join(
    chunks: Streaming<AppendChunk>,
    memory: Reservation,
    deadline: Instant,
) -> Result<Joined, Status> {
    timeout_at(deadline, collect(chunks, memory))
        .await
        .unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "chunks incomplete at the deadline; nothing was written",
            ))
        })
}

async fn collect(
    mut chunks: Streaming<AppendChunk>,
    mut memory: Reservation,
) -> Result<Joined, Status> {
    let Some(first) = chunks.message().await? else {
        return Err(invalid("append without chunks; expected at least one"));
    };
    let total = usize::try_from(first.total_bytes).unwrap_or(usize::MAX);
    if total > ENCODED_BYTES_MAX {
        return Err(invalid(format!(
            "append too large: {total} bytes as a message; expected at most {ENCODED_BYTES_MAX}"
        )));
    }
    let mut scanner = MessageScanner::new(APPEND);
    let mut bytes = BytesMut::new();
    let mut chunk = Some(first);
    while let Some(AppendChunk { bytes: more, .. }) = chunk {
        if bytes.len() + more.len() > total {
            return Err(invalid(format!(
                "chunks too long: more than the {total} bytes that were announced"
            )));
        }
        let decoded = scanner
            .scan(&more)
            .map_err(|error| invalid(error.to_string()))?;
        memory
            .grow(more.len() + decoded)
            .map_err(|full| Status::from(ErrorResponse::overloaded(full)))?;
        bytes.extend_from_slice(&more);
        chunk = if bytes.len() < total {
            chunks.message().await?
        } else {
            None
        };
    }
    if bytes.len() < total {
        return Err(invalid(format!(
            "chunks ended after {} of {total} bytes; nothing was written",
            bytes.len()
        )));
    }
    let request =
        AppendRequest::decode(bytes.freeze()).map_err(|error| invalid(error.to_string()))?;
    Ok(Joined { request, memory })
}

fn invalid(reason: impl Into<String>) -> Status {
    ErrorResponse::invalid(reason).into()
}
