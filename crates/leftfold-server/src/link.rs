//! Links: events that stand for others.
//!
//! **Owns:** what a link is, and finding what it leads to. **Does not know:** who shows it.

use futures_util::TryStreamExt;
use leftfold_model::{Read, RecordedEvent, Revision, StreamName};
use leftfold_store::{EventStore, ReadError};

/// The type of links.
pub(crate) const LINK_TYPE: &str = "$>";

/// Whether an event is a link.
pub(crate) fn is_link(event: &RecordedEvent) -> bool {
    event.event_type.as_str() == LINK_TYPE
}

/// The event that a link leads to; `None` if that is not there.
///
/// # Errors
/// [`ReadError`], but not for a tombstoned stream, or one that the caller may not read.
pub(crate) async fn target(
    store: &dyn EventStore,
    link: &RecordedEvent,
) -> Result<Option<RecordedEvent>, ReadError> {
    let Some((stream, revision)) = place(&link.data) else {
        return Ok(None);
    };
    let read = Read::stream(stream).from_revision(revision).limit(1);
    match store.read(read).try_next().await {
        Ok(batch) => Ok(batch
            .and_then(|batch| batch.events.into_iter().next())
            .filter(|event| event.revision == revision)),
        Err(ReadError::StreamDeleted { .. } | ReadError::AccessDenied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a link says: `revision@stream`.
pub(crate) fn place(data: &[u8]) -> Option<(StreamName, Revision)> {
    let (revision, stream) = std::str::from_utf8(data).ok()?.split_once('@')?;
    let revision = revision.parse().ok().map(Revision::new)?;
    Some((StreamName::new(stream).ok()?, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_revision_and_stream() {
        let (stream, revision) = place(b"7@a@b-1").unwrap();
        assert_eq!((stream.as_str(), revision.get()), ("a@b-1", 7));
        for broken in [&b"7"[..], b"@a", b"x@a", b"7@", b"\xff@a"] {
            assert!(place(broken).is_none());
        }
    }
}
