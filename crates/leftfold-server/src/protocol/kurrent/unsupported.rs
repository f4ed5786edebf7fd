//! Names of indexes that are no streams, and of streams that this server does not keep.
//!
//! **Owns:** refusing them. **Does not know:** which there are; `event_filter`, `system_index` and `unsupported_stream` do.

use leftfold_model::StreamName;
use tonic::Status;

use super::status;
use crate::{event_filter, unsupported_stream};

/// Refuses a stream that nothing was written to, if its name is that of an index, which is read as a filter of `$all`, or of a
/// stream that other servers write by themselves.
pub(super) fn refuse(stream: &StreamName) -> Result<(), Status> {
    let name = stream.as_str();
    if name.starts_with(event_filter::INDEX_PREFIX) {
        return Err(status::index_not_found(name));
    }
    if let Some(instead) = unsupported_stream::instead_of(stream) {
        return Err(Status::unimplemented(format!(
            "stream not kept by this server: {name}; expected {instead}"
        )));
    }
    Ok(())
}
