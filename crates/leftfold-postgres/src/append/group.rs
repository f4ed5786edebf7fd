//! A group of appends that are decided and written together.
//!
//! **Owns:** which appends may share a group, and which conditions of one match events of another.
//! **Does not know:** the database.
//! **Invariants:** an event id occurs at most once in a group. A group is within its bounds unless it is a single append.

use std::collections::HashSet;

use leftfold_model::{Append, EventId, NewEvent, QueryItem};

use super::items::Searched;

/// Maximum number of appends of a group. The cost of the commit is shared well enough by then.
const APPENDS_MAX: usize = 512;
/// Maximum number of events of a group.
const EVENTS_MAX: usize = 4_096;
/// Maximum size of a group in bytes. The server holds several copies of it.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// How many events the searches for conditions may look at within a group, about: a millisecond or two. All appends of the
/// process wait for these searches. The more appends have conditions, the more is shared.
const SEARCH_COST: i32 = 128;
/// How many more for each append with conditions.
const SEARCH_COST_OF_EACH: i32 = 16;

/// Appends of several callers, in the order in which they are decided.
#[derive(Debug, Default)]
pub(crate) struct Group {
    appends: Vec<Append>,
    searched: Vec<Option<Searched>>,
    ids: HashSet<EventId>,
    bytes: usize,
}

impl Group {
    pub(crate) fn of(append: Append) -> Self {
        Self::of_searched(append, None)
    }

    /// A group of one append, and what was searched for its conditions before.
    pub(crate) fn of_searched(append: Append, searched: Option<Searched>) -> Self {
        let mut group = Self::default();
        group.push(append, searched);
        group
    }

    pub(crate) fn appends(&self) -> &[Append] {
        &self.appends
    }

    /// Returns up to where the conditions of an append were searched before it joined the group.
    pub(crate) fn searched(&self, index: usize) -> Option<&Searched> {
        self.searched.get(index)?.as_ref()
    }

    /// Returns the appends, each with what was searched for it before.
    pub(crate) fn into_appends(self) -> impl Iterator<Item = (Append, Option<Searched>)> {
        self.appends.into_iter().zip(self.searched)
    }

    /// Returns how many events the search for all conditions of the group may look at, about.
    pub(crate) fn search_cost_max(&self) -> i32 {
        let with_conditions = |append: &&Append| !append.conditions().is_empty();
        let appends = self.appends.iter().filter(with_conditions).count();
        let more = i32::try_from(appends).unwrap_or(i32::MAX);
        more.saturating_mul(SEARCH_COST_OF_EACH)
            .saturating_add(SEARCH_COST)
    }

    /// Returns whether the append fits into the group.
    pub(crate) fn admits(&self, append: &Append) -> bool {
        self.appends.len() < APPENDS_MAX
            && self.ids.len() + append.event_count() <= EVENTS_MAX
            && self.bytes + append.size() <= BYTES_MAX
            && append.events().all(|event| !self.ids.contains(&event.id()))
    }

    pub(crate) fn push(&mut self, append: Append, searched: Option<Searched>) {
        self.ids.extend(append.events().map(NewEvent::id));
        self.bytes += append.size();
        self.appends.push(append);
        self.searched.push(searched);
    }

    /// Returns the events of earlier appends that match `item`, a part of a condition of append `index`: the last of each.
    ///
    /// An event is given by the number of its write in the whole group, checks included, and its index in that write.
    pub(crate) fn conflicts_within_group(
        &self,
        index: usize,
        item: &QueryItem,
    ) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut write_number = 0;
        for append in self.appends.iter().take(index) {
            let mut last = None;
            for write in append.writes() {
                let place = write.events.iter().rposition(|event| matches(item, event));
                last = place.map(|place| (write_number, place)).or(last);
                write_number += 1;
            }
            write_number += append.checks().len();
            found.extend(last);
        }
        found
    }
}

/// Returns whether an event that is not stored yet matches.
fn matches(item: &QueryItem, event: &NewEvent) -> bool {
    let types = item.type_list();
    (types.is_empty() || types.contains(event.event_type()))
        && item.tag_list().iter().all(|tag| event.tags().contains(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use leftfold_model::{EventType, ExpectedRevision, StreamName, Tag};

    fn event(kind: &str, tags: &[&str]) -> NewEvent {
        let tags = tags.iter().map(|tag| Tag::new(*tag).unwrap());
        NewEvent::json(EventType::new(kind).unwrap(), "{}")
            .with_tags(tags)
            .unwrap()
    }
    fn append(events: Vec<NewEvent>) -> Append {
        Append::to(StreamName::new("a").unwrap(), ExpectedRevision::Any, events).unwrap()
    }

    #[test]
    fn an_append_with_an_id_of_the_group_waits_for_the_next() {
        let one = append(vec![event("A", &[])]);
        let group = Group::of(one.clone());
        assert!(!group.admits(&one));
        assert!(group.admits(&append(vec![event("A", &[])])));
    }

    #[test]
    fn a_group_is_bounded_in_appends_events_and_bytes() {
        let mut group = Group::of(append(vec![event("A", &[])]));
        let large = NewEvent::json(EventType::new("L").unwrap(), vec![b' '; BYTES_MAX]);
        assert!(!group.admits(&append(vec![large])));
        assert!(!group.admits(&append((0..EVENTS_MAX).map(|_| event("A", &[])).collect())));
        for _ in 1..APPENDS_MAX {
            group.push(append(vec![event("A", &[])]), None);
        }
        assert!(!group.admits(&append(vec![event("A", &[])])));
    }

    #[test]
    fn an_item_meets_the_last_event_it_asks_for_of_each_earlier_append() {
        let mut group = Group::of(append(vec![
            event("A", &["x"]),
            event("A", &["x"]),
            event("B", &[]),
        ]));
        group.push(append(vec![event("B", &["x"])]), None);
        group.push(append(vec![event("A", &["x"])]), None);
        let item = QueryItem::tags([Tag::new("x").unwrap()]).unwrap();
        assert_eq!(group.conflicts_within_group(2, &item), [(0, 1), (1, 0)]);
        let tags = [Tag::new("x").unwrap()];
        let item = QueryItem::new([EventType::new("A").unwrap()], tags).unwrap();
        assert_eq!(group.conflicts_within_group(2, &item), [(0, 1)]);
        assert!(group.conflicts_within_group(0, &item).is_empty());
    }
}
