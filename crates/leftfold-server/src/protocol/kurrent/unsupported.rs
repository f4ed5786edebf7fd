//! System streams that KurrentDB's projections write and this server does not offer.
//!
//! **Owns:** their names. **Does not know:** indexes; `filter` serves those that the log has.

use leftfold_model::StreamName;
use tonic::Status;

use super::{filter, status};

/// Names, or prefixes of names, of the streams that projections write.
const OF_PROJECTIONS: [&str; 4] = ["$ce-", "$et-", "$bc-", "$category-"];
/// The stream of all streams, which a projection writes.
const STREAMS: &str = "$streams";

/// Refuses a stream without events whose name belongs to a projection.
pub(super) fn refuse(stream: &StreamName) -> Result<(), Status> {
    let name = stream.as_str();
    if name.starts_with(filter::INDEX_PREFIX) {
        return Err(status::index_not_found(name));
    }
    if name == STREAMS || OF_PROJECTIONS.iter().any(|begins| name.starts_with(begins)) {
        return Err(status::needs_projection(stream));
    }
    Ok(())
}
