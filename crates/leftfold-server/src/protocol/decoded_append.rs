//! The memory of a decoded append.
//!
//! **Owns:** what events, tags and checks take beside the bytes of their request. **Does not know:** formats.
//! **Invariants:** a request of many small elements is charged for each of them, whatever the bytes that name it.

use leftfold_model::{Append, NewEvent, StreamCheck};

/// What the allocator takes for a name beside its bytes.
const NAME_BYTES: usize = 64;

/// Returns the bytes that an append takes beside those of its request.
pub(super) fn memory(append: &Append) -> usize {
    let events: usize = append.events().map(event_memory).sum();
    events + append.checks().len() * (size_of::<StreamCheck>() + NAME_BYTES)
}

/// Returns the bytes that an event takes beside its data, its metadata and the texts of its names.
pub(super) fn event_memory(event: &NewEvent) -> usize {
    size_of::<NewEvent>() + (1 + event.tags().len()) * NAME_BYTES
}

#[cfg(test)]
mod tests {
    use leftfold_model::{EventType, ExpectedRevision, StreamName, Tag};

    use super::*;

    #[test]
    fn events_tags_and_checks_are_counted() {
        let tags = ["a", "b"].map(|tag| Tag::new(tag).unwrap());
        let event = NewEvent::json(EventType::new("T").unwrap(), "{}").with_tags(tags);
        let stream = StreamName::new("a").unwrap();
        let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![event.unwrap()]);
        let append = append.unwrap();
        let alone = memory(&append);
        assert!(alone > size_of::<NewEvent>() + 2 * NAME_BYTES);
        let checked = append.with_check(stream, ExpectedRevision::NoStream);
        assert!(memory(&checked.unwrap()) > alone + NAME_BYTES);
    }
}
