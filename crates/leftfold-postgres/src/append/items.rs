//! The items of append conditions as parameters, and up to where they were searched for.
//!
//! **Owns:** [`ItemColumns`] and [`Searched`]. **Does not know:** groups; what searches.
//! **Invariants:** arrays have one length, in the order of appends, conditions and items.

use leftfold_model::{Append, Query, QueryItem};
use uuid::Uuid;

use crate::{name::escaped, value::to_bigint};

/// Up to where the items of an append's conditions were searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Searched {
    /// The position of the newest event of the log, or 0.
    pub(crate) through: i64,
    /// The id of that event.
    pub(crate) id: Option<Uuid>,
    /// For each item of all conditions, the position up to which no event matches.
    pub(crate) afters: Vec<i64>,
}

/// The items of append conditions.
#[derive(Debug, Default)]
pub(crate) struct ItemColumns {
    pub(crate) append: Vec<i32>,
    pub(crate) condition: Vec<i32>,
    pub(crate) after: Vec<i64>,
    pub(crate) types: Vec<Option<String>>,
    pub(crate) tags: Vec<Option<String>>,
}

impl ItemColumns {
    /// The items of one append, to be searched for behind what was searched already.
    pub(crate) fn of(append: &Append, searched: Option<&Searched>) -> Self {
        let mut items = Self::default();
        items.push_append(0, append, searched);
        items
    }

    /// Adds the items of the append of this index.
    pub(super) fn push_append(
        &mut self,
        index: usize,
        append: &Append,
        searched: Option<&Searched>,
    ) {
        let mut afters = searched.map(|searched| searched.afters.iter());
        for (number, condition) in append.conditions().iter().enumerate() {
            for item in items(&condition.fail_if_match) {
                let after = afters.as_mut().and_then(Iterator::next).copied();
                self.append.push(count(index + 1));
                self.condition.push(count(number));
                self.after
                    .push(after.unwrap_or_else(|| to_bigint(condition.after.seen_through().get())));
                let types = item.map_or(&[][..], QueryItem::type_list);
                let tags = item.map_or(&[][..], QueryItem::tag_list);
                self.types
                    .push(list(types.iter().map(|kind| kind.as_str())));
                self.tags.push(list(tags.iter().map(|tag| tag.as_str())));
            }
        }
    }

    /// Returns the position behind which each item has to be searched for next, after a search up to `through`.
    pub(crate) fn afters(&self, through: i64, matches: &[Option<i64>]) -> Vec<i64> {
        let asks_for_all = self
            .types
            .iter()
            .zip(&self.tags)
            .map(|(types, tags)| types.is_none() && tags.is_none());
        let items = self.after.iter().zip(asks_for_all).zip(matches);
        items
            .map(|((&after, asks_for_all), first)| match first {
                // Not searched for.
                Some(0) => after,
                _ if asks_for_all => after,
                Some(position) => position - 1,
                None => after.max(through),
            })
            .collect()
    }
}

/// Returns the items of a query; `None` stands for a query for all events.
pub(super) fn items(query: &Query) -> impl Iterator<Item = Option<&QueryItem>> {
    let (all, items) = match query {
        Query::All => (Some(None), [].as_slice()),
        Query::Items(items) => (None, items.as_slice()),
    };
    all.into_iter().chain(items.iter().map(Some))
}

/// Converts a count or index within a group, whose limits are far below `i32::MAX`.
pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Encodes names as an array literal; `None` if there are none.
///
/// Arrays of arrays must be rectangular in PostgreSQL, so lists of different lengths are sent as text.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut text = String::new();
    for name in names {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push('"');
        for character in escaped(name).chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    if text.is_empty() {
        return None;
    }
    text.push('}');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_quotes_what_an_array_would_take_apart() {
        assert_eq!(
            list(["a", "b\"c\\d", "e,{}"].into_iter()).unwrap(),
            r#"{"a","b\"c\\d","e,{}"}"#
        );
        assert_eq!(list([].into_iter()), None);
    }

    #[test]
    fn a_search_goes_on_where_the_last_one_ended_or_at_the_event_that_it_found() {
        let some = Some("{}".to_owned());
        let items = ItemColumns {
            append: vec![1; 5],
            condition: vec![0; 5],
            after: vec![3, 3, 3, 3, 50],
            types: vec![some.clone(), some.clone(), some.clone(), None, some],
            tags: vec![None; 5],
        };
        let matches = [None, Some(7), Some(0), None, None];
        assert_eq!(items.afters(20, &matches), [20, 6, 3, 3, 50]);
    }
}
