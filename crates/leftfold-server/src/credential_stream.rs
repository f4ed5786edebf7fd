//! Streams that hold what credentials are verified by.
//!
//! **Owns:** the names of these streams. **Does not know:** what is in them.
//! **Invariants:** no principal is given an event of such a stream, administrators included; neither is a group.

/// What stands before a login in the name of its stream.
pub(crate) const USER_PREFIX: &str = "$user-";
/// What stands before the id of a key in the name of its stream.
pub(crate) const KEY_PREFIX: &str = "$key-";

/// Whether a stream, or the one whose metadata it holds, is one of credentials.
pub(crate) fn is_credential_stream(stream: &str) -> bool {
    let described = stream.strip_prefix("$$").unwrap_or(stream);
    described.starts_with(USER_PREFIX) || described.starts_with(KEY_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::is_credential_stream;

    #[test]
    fn records_of_users_and_keys_and_their_metadata_are_credentials() {
        for stream in ["$user-ann", "$key-7", "$$$user-ann", "$$$key-7"] {
            assert!(is_credential_stream(stream), "{stream}");
        }
        for stream in ["user-ann", "$users", "$$user-ann", "$tracking-$user-ann"] {
            assert!(!is_credential_stream(stream), "{stream}");
        }
    }
}
