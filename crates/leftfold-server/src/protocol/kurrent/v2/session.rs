//! `AppendSession`: a message for each stream, and all of them appended together.
//!
//! **Owns:** [`Session`]: collecting the messages, and the response. **Does not know:** how an append is decided.
//! **Invariants:** a session that breaks a rule ends before more of it is read; nothing is written unless the client ended the
//! session.

use std::{collections::HashSet, sync::Arc};

use leftfold_model::{
    Append, Appended, Bytes, ExpectedRevision, NewEvent, Revision, StreamName, StreamWrite, limits,
};
use leftfold_proto::kurrentdb::protocol::v2::streams::{
    AppendRequest, AppendResponse, AppendSessionResponse,
};
use leftfold_store::EventStore;
use tonic::{Status, Streaming};

use super::{
    super::{revision, stream_ids, tombstoned_metadata::MetadataRevisions},
    record, status,
};
use crate::{call, connection::Reservation, protocol::decoded_append, state::ServerState};

/// The messages of a session so far.
#[derive(Debug)]
pub(super) struct Session {
    /// The memory it takes.
    held: Reservation,
    writes: Vec<StreamWrite>,
    streams: HashSet<StreamName>,
    events: usize,
    bytes: usize,
}

impl Session {
    /// Collects all messages.
    pub(super) async fn gather(
        shared: &ServerState,
        mut messages: Streaming<AppendRequest>,
    ) -> Result<Self, Status> {
        let mut session = Self {
            held: call::reservation(shared),
            writes: Vec::new(),
            streams: HashSet::new(),
            events: 0,
            bytes: 0,
        };
        while let Some(message) = messages.message().await? {
            session.take_in(message)?;
        }
        Ok(session)
    }

    fn take_in(&mut self, message: AppendRequest) -> Result<(), Status> {
        let stream = record::stream(message.stream)?;
        if !self.streams.insert(stream.clone()) {
            return Err(status::stream_came_twice(&stream));
        }
        let expected = expected(&stream, message.expected_revision)?;
        if message.records.is_empty() {
            return Err(Status::invalid_argument(format!(
                "request for stream {stream} has no records; expected 1 to {} (APPEND_EVENTS_MAX)",
                limits::APPEND_EVENTS_MAX
            )));
        }
        bound_events(&mut self.events, message.records.len())?;
        let mut events = Vec::with_capacity(message.records.len());
        for mut record in message.records {
            // The bytes of the message may be many more than those of the record.
            record.data = Bytes::copy_from_slice(&record.data);
            let event = record::event(record, &stream)?;
            bound_bytes(&mut self.bytes, &event, &stream)?;
            let taken = event.size() + decoded_append::event_memory(&event);
            let held = self.held.grow(taken);
            held.map_err(|full| Status::unavailable(full.to_string()))?;
            events.push(event);
        }
        self.writes.push(StreamWrite {
            stream,
            expected,
            events,
        });
        Ok(())
    }

    /// Appends the collected records.
    pub(super) async fn execute(
        self,
        store: Arc<dyn EventStore>,
    ) -> Result<AppendSessionResponse, Status> {
        let mut writes = self.writes;
        stream_ids::separate(&mut writes);
        let counts = MetadataRevisions::of(&*store, &writes).await;
        let counts = counts.map_err(|error| status::of_read(&error))?;
        let asked: Vec<_> = writes.iter().map(|write| write.expected).collect();
        counts.convert_expected(&mut writes);
        let append = Append::new(writes, Vec::new());
        let append = append.map_err(|error| status::of_model(&error))?;
        match stream_ids::append(&*store, append.clone()).await {
            Ok(mut appended) => {
                counts.convert_appended(&mut appended);
                Ok(answer(append.writes(), &appended))
            }
            Err(error) => {
                let error = counts.convert_error(append.writes(), &asked, error);
                Err(status::of_append(&*store, append.writes(), error).await)
            }
        }
    }
}

/// Counts records, up to the limit of an append.
pub(super) fn bound_events(events: &mut usize, more: usize) -> Result<(), Status> {
    *events = events.saturating_add(more);
    if *events > limits::APPEND_EVENTS_MAX {
        return Err(Status::invalid_argument(format!(
            "the append has {events} records or more; allowed are {} (APPEND_EVENTS_MAX)",
            limits::APPEND_EVENTS_MAX
        )));
    }
    Ok(())
}

/// Counts bytes, up to the limit of an append.
pub(super) fn bound_bytes(
    bytes: &mut usize,
    event: &NewEvent,
    stream: &StreamName,
) -> Result<(), Status> {
    *bytes += event.size() + stream.as_str().len();
    if *bytes > limits::APPEND_BYTES_MAX {
        return Err(status::append_too_large(*bytes, limits::APPEND_BYTES_MAX));
    }
    Ok(())
}

fn expected(stream: &StreamName, number: Option<i64>) -> Result<ExpectedRevision, Status> {
    match number {
        None | Some(revision::ANY) => Ok(ExpectedRevision::Any),
        Some(revision::NO_STREAM) => Ok(ExpectedRevision::NoStream),
        Some(revision::EXISTS) => Ok(ExpectedRevision::StreamExists),
        Some(number) => match u64::try_from(number) {
            Ok(revision) => Ok(ExpectedRevision::Exact(Revision::new(revision))),
            Err(_) => Err(Status::invalid_argument(format!(
                "expected revision {number} of stream {stream} is neither a revision nor one of -1, -2, -4"
            ))),
        },
    }
}

fn answer(writes: &[StreamWrite], appended: &Appended) -> AppendSessionResponse {
    let mut behind = appended.first;
    let output = writes.iter().zip(&appended.streams);
    let output = output.map(|(write, (stream, last))| {
        behind = behind.saturating_add(write.events.len() as u64);
        AppendResponse {
            stream: stream.to_string(),
            stream_revision: revision::of_revision(*last),
            position: Some(revision::of_position(behind.previous())),
        }
    });
    AppendSessionResponse {
        output: output.collect(),
        position: revision::of_position(appended.last),
    }
}

#[cfg(test)]
mod tests {
    use leftfold_model::EventType;
    use leftfold_proto::{
        google::rpc,
        kurrentdb::protocol::v2::streams::errors::AppendTransactionSizeExceededErrorDetails,
        prost::Message,
    };
    use tonic::Code;

    use super::*;

    #[test]
    fn an_append_that_grows_too_large_is_told_with_both_sizes() {
        let stream = StreamName::default_stream();
        let event = NewEvent::json(EventType::new("T").unwrap(), vec![b'x'; 1000]);
        let mut bytes = limits::APPEND_BYTES_MAX - 2000;
        bound_bytes(&mut bytes, &event, &stream).unwrap();
        let refused = bound_bytes(&mut bytes, &event, &stream).unwrap_err();
        assert_eq!(refused.code(), Code::Aborted);
        let detail = rpc::Status::decode(refused.details()).unwrap();
        assert!(
            detail.details[0]
                .type_url
                .ends_with(".AppendTransactionSizeExceededErrorDetails")
        );
        let detail =
            AppendTransactionSizeExceededErrorDetails::decode(&detail.details[0].value[..])
                .unwrap();
        assert_eq!(
            usize::try_from(detail.max_size),
            Ok(limits::APPEND_BYTES_MAX)
        );
        assert!(detail.size > detail.max_size);
    }
}
