//! Deleting streams.
//!
//! **Owns:** `Delete` and `Tombstone`. **Does not know:** what either does to a stream.

use std::sync::Arc;

use leftfold_model::{Conflict, ExpectedRevision, Position, Revision};
use leftfold_proto::event_store::client::streams::{
    DeleteReq, DeleteResp, TombstoneReq, TombstoneResp, delete_req, delete_resp, tombstone_req,
    tombstone_resp,
};
use leftfold_store::{AppendError, Delete};
use tokio::time::Instant;
use tonic::{Request, Status};

use super::{event, status};
use crate::{call, state::ServerState};

/// `Delete`: the stream can be recreated.
pub(super) async fn delete(
    shared: &Arc<ServerState>,
    request: Request<DeleteReq>,
) -> Result<DeleteResp, Status> {
    use delete_req::options::ExpectedStreamRevision as Expected;
    let deadline = call::deadline(shared);
    let options = request
        .into_inner()
        .options
        .ok_or_else(|| status::missing("options"))?;
    let expected = match options.expected_stream_revision {
        Some(Expected::Revision(at)) => ExpectedRevision::Exact(Revision::new(at)),
        Some(Expected::NoStream(_)) => ExpectedRevision::NoStream,
        Some(Expected::StreamExists(_)) => ExpectedRevision::StreamExists,
        Some(Expected::Any(_)) => ExpectedRevision::Any,
        None => return Err(status::missing("expected_stream_revision")),
    };
    let stream = event::stream(options.stream_identifier)?;
    let delete = Delete::stream(stream, expected);
    let at = end(shared, deadline, delete).await?.get();
    let position = delete_resp::Position {
        commit_position: at,
        prepare_position: at,
    };
    Ok(DeleteResp {
        position_option: Some(delete_resp::PositionOption::Position(position)),
    })
}

/// `Tombstone`: the stream can never be recreated.
pub(super) async fn tombstone(
    shared: &Arc<ServerState>,
    request: Request<TombstoneReq>,
) -> Result<TombstoneResp, Status> {
    use tombstone_req::options::ExpectedStreamRevision as Expected;
    let deadline = call::deadline(shared);
    let options = request
        .into_inner()
        .options
        .ok_or_else(|| status::missing("options"))?;
    let expected = match options.expected_stream_revision {
        Some(Expected::Revision(at)) => ExpectedRevision::Exact(Revision::new(at)),
        Some(Expected::NoStream(_)) => ExpectedRevision::NoStream,
        Some(Expected::StreamExists(_)) => ExpectedRevision::StreamExists,
        Some(Expected::Any(_)) => ExpectedRevision::Any,
        None => return Err(status::missing("expected_stream_revision")),
    };
    let stream = event::stream(options.stream_identifier)?;
    let delete = Delete::tombstone(stream, expected);
    let at = end(shared, deadline, delete).await?.get();
    let position = tombstone_resp::Position {
        commit_position: at,
        prepare_position: at,
    };
    Ok(TombstoneResp {
        position_option: Some(tombstone_resp::PositionOption::Position(position)),
    })
}

async fn end(
    shared: &Arc<ServerState>,
    deadline: Instant,
    delete: Delete,
) -> Result<Position, Status> {
    let store = shared.store();
    let work = async move { store.delete(delete).await };
    let finished = call::run_to_completion(shared, deadline, work).await;
    match finished.map_err(status::unfinished)? {
        Ok(appended) => Ok(appended.last),
        Err(AppendError::Conflict(Conflict::WrongRevision {
            stream,
            expected,
            actual,
        })) => Err(status::wrong_expected_version(&stream, expected, actual)),
        Err(AppendError::Conflict(Conflict::StreamDeleted { stream })) => {
            Err(status::stream_deleted(&stream))
        }
        Err(error) => Err(status::of_append(&error)),
    }
}
