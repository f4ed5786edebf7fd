//! Names of indexes that are no streams.
//!
//! **Owns:** refusing them. **Does not know:** which indexes there are; `event_filter` and `system_index` do.

use leftfold_model::StreamName;
use tonic::Status;

use super::status;
use crate::event_filter;

/// Refuses a stream that nothing was written to, if its name is that of an index, which is read as a filter of `$all`.
pub(super) fn refuse(stream: &StreamName) -> Result<(), Status> {
    let name = stream.as_str();
    if name.starts_with(event_filter::INDEX_PREFIX) {
        return Err(status::index_not_found(name));
    }
    Ok(())
}
