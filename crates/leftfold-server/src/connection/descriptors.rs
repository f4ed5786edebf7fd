//! File descriptors: raising their limit, and deriving the number of connections from it.
//!
//! **Owns:** [`connections_within_limit`]. **Does not know:** what other code opens.
//! **Invariants:** connections never use the descriptors that the store needs for its files, because a store that cannot open
//! a file accepts no appends.

/// Descriptors reserved for the store's files and directories, for logs, and for inherited files.
const RESERVED: usize = 256;
/// Minimum number of connections of a server.
const CONNECTIONS_MIN: usize = 16;

/// Why there are too few descriptors to start.
#[derive(Debug, thiserror::Error)]
#[error(
    "limit of file descriptors too low: {limit}; expected at least {}; raise it, as by `ulimit -n` or LimitNOFILE=",
    RESERVED + CONNECTIONS_MIN
)]
pub struct DescriptorError {
    limit: usize,
}

/// Raises the soft limit of file descriptors to the hard one, and returns how many of the wanted connections it leaves.
///
/// # Errors
/// [`DescriptorError`]: it leaves too few.
pub(crate) fn connections_within_limit(wanted: usize) -> Result<usize, DescriptorError> {
    let Some(limit) = raised_limit() else {
        return Ok(wanted);
    };
    let connections = within(limit, wanted)?;
    if connections < wanted {
        tracing::warn!(
            limit,
            connections,
            wanted,
            "connections bounded by the limit of file descriptors"
        );
    }
    Ok(connections)
}

fn within(limit: usize, wanted: usize) -> Result<usize, DescriptorError> {
    match limit.checked_sub(RESERVED) {
        Some(left) if left >= CONNECTIONS_MIN => Ok(wanted.min(left)),
        _ => Err(DescriptorError { limit }),
    }
}

/// Raises the limit and returns it; `None` if there is none, or the system does not report it.
#[cfg(unix)]
fn raised_limit() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current?;
    let hard = limit.maximum.unwrap_or(soft).max(soft);
    let raised = Rlimit {
        current: Some(hard),
        maximum: limit.maximum,
    };
    let soft = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    usize::try_from(soft).ok()
}

#[cfg(not(unix))]
fn raised_limit() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_store() {
        assert_eq!(within(1_024, 4_096).unwrap(), 768);
        assert_eq!(within(20_000, 4_096).unwrap(), 4_096);
        let error = within(256, 4_096).unwrap_err().to_string();
        assert!(error.contains("256") && error.contains("ulimit"), "{error}");
    }
}
