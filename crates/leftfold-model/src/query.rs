//! Queries: which events a decision or a reader is interested in.
//!
//! **Owns:** [`Query`], [`QueryItem`] and what it means to match. **Does not know:** indexes.
//! **Invariants:** an item names at least one type or tag; a list of items has at least one; "everything" is
//! a case of its own, never an empty list; lists are sorted and without doubles.

use crate::{
    EventType, ModelError, Tag,
    error::in_range,
    limits::{QUERY_ITEM_TAGS_MAX, QUERY_ITEM_TYPES_MAX, QUERY_ITEMS_MAX, QUERY_TERMS_MAX},
};

/// Which events: all of them, or those that match at least one item.
///
/// ```
/// use leftfold_model::{EventType, Query, QueryItem, Tag};
/// let course = Tag::new("course:c1")?;
/// let query = Query::items([QueryItem::types([EventType::new("SeatTaken")?])?.and_tags([course])?])?;
/// assert_ne!(query, Query::All);
/// # Ok::<(), leftfold_model::ModelError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Query {
    /// Every event.
    #[default]
    All,
    /// Events that match at least one of these items. Made by [`Query::items`].
    Items(Vec<QueryItem>),
}

/// One alternative of a query: the type is one of `types` **and** the tags contain all of `tags`.
///
/// No types: any type. No tags: any tags. One of the two lists is never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryItem {
    types: Vec<EventType>,
    tags: Vec<Tag>,
}

impl Query {
    /// Creates a query for events that match at least one of `items`.
    ///
    /// # Errors
    /// [`ModelError::OutOfRange`] for no item, more than `limits::QUERY_ITEMS_MAX`, or more than `limits::QUERY_TERMS_MAX` types
    /// and tags in all items.
    pub fn items(items: impl IntoIterator<Item = QueryItem>) -> Result<Self, ModelError> {
        let items: Vec<_> = items.into_iter().collect();
        let bounds = (1, QUERY_ITEMS_MAX);
        in_range(
            || "query".into(),
            "items",
            items.len(),
            bounds,
            "QUERY_ITEMS_MAX",
        )?;
        let query = Self::Items(items);
        in_range(
            || "query".into(),
            "types and tags",
            query.term_count(),
            (0, QUERY_TERMS_MAX),
            "QUERY_TERMS_MAX",
        )?;
        Ok(query)
    }

    /// Returns the number of types and tags in all items: what reading it costs.
    #[must_use]
    pub fn term_count(&self) -> usize {
        let items = match self {
            Self::All => &[],
            Self::Items(items) => items.as_slice(),
        };
        items
            .iter()
            .map(|item| item.types.len() + item.tags.len())
            .sum()
    }

    /// Returns whether an event of this type with these tags matches. `tags` must be sorted, as those of events are.
    #[must_use]
    pub fn matches(&self, event_type: &EventType, tags: &[Tag]) -> bool {
        match self {
            Self::All => true,
            Self::Items(items) => items.iter().any(|item| item.matches(event_type, tags)),
        }
    }
}

impl QueryItem {
    /// Creates an item of types and tags.
    ///
    /// # Errors
    /// [`ModelError::EmptyQueryItem`] if both are empty, [`ModelError::OutOfRange`] if one is too long.
    pub fn new(
        types: impl IntoIterator<Item = EventType>,
        tags: impl IntoIterator<Item = Tag>,
    ) -> Result<Self, ModelError> {
        let mut types: Vec<_> = types.into_iter().collect();
        let mut tags: Vec<_> = tags.into_iter().collect();
        if types.is_empty() && tags.is_empty() {
            return Err(ModelError::EmptyQueryItem { index: 0 });
        }
        types.sort();
        types.dedup();
        tags.sort();
        tags.dedup();
        let bounds = (0, QUERY_ITEM_TYPES_MAX);
        in_range(
            || "query item".into(),
            "types",
            types.len(),
            bounds,
            "QUERY_ITEM_TYPES_MAX",
        )?;
        let bounds = (0, QUERY_ITEM_TAGS_MAX);
        in_range(
            || "query item".into(),
            "tags",
            tags.len(),
            bounds,
            "QUERY_ITEM_TAGS_MAX",
        )?;
        Ok(Self { types, tags })
    }

    /// Creates an item for events of any of these types.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn types(types: impl IntoIterator<Item = EventType>) -> Result<Self, ModelError> {
        Self::new(types, [])
    }

    /// Creates an item for events with all of these tags.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn tags(tags: impl IntoIterator<Item = Tag>) -> Result<Self, ModelError> {
        Self::new([], tags)
    }

    /// Restricts the item to events that carry all of these tags.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn and_tags(self, tags: impl IntoIterator<Item = Tag>) -> Result<Self, ModelError> {
        Self::new(self.types, self.tags.into_iter().chain(tags))
    }

    /// Returns the types, any of which matches; empty: any type.
    #[must_use]
    pub fn type_list(&self) -> &[EventType] {
        &self.types
    }

    /// Returns the tags, all of which an event must have; empty: any tags.
    #[must_use]
    pub fn tag_list(&self) -> &[Tag] {
        &self.tags
    }

    fn matches(&self, event_type: &EventType, tags: &[Tag]) -> bool {
        let type_fits = self.types.is_empty() || self.types.binary_search(event_type).is_ok();
        type_fits && self.tags.iter().all(|tag| tags.binary_search(tag).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(name: &str) -> EventType {
        EventType::new(name).unwrap()
    }
    fn g(name: &str) -> Tag {
        Tag::new(name).unwrap()
    }

    #[test]
    fn an_item_needs_one_of_its_types_and_all_of_its_tags() {
        let item = QueryItem::new([t("A"), t("B")], [g("x"), g("y")]).unwrap();
        let query = Query::items([item]).unwrap();
        assert!(query.matches(&t("A"), &[g("x"), g("y"), g("z")]));
        assert!(query.matches(&t("B"), &[g("x"), g("y")]));
        assert!(!query.matches(&t("C"), &[g("x"), g("y")]));
        assert!(!query.matches(&t("A"), &[g("x")]));
    }

    #[test]
    fn items_are_alternatives() {
        let query = Query::items([
            QueryItem::types([t("A")]).unwrap(),
            QueryItem::tags([g("x")]).unwrap(),
        ]);
        let query = query.unwrap();
        assert!(query.matches(&t("A"), &[]));
        assert!(query.matches(&t("Z"), &[g("x")]));
        assert!(!query.matches(&t("Z"), &[g("y")]));
    }

    #[test]
    fn types_and_tags_of_all_items_hold_at_the_limit_and_not_beyond() {
        let names = |count: usize| (0..count).map(|nth| t(&format!("T{nth}")));
        let item = |count| QueryItem::types(names(count)).unwrap();
        let mut items = vec![item(256); 256];
        let query = Query::items(items.clone()).unwrap();
        assert_eq!(query.term_count(), QUERY_TERMS_MAX);
        items.push(item(1));
        let refused = Query::items(items).unwrap_err().to_string();
        assert!(
            refused.contains("65537") && refused.contains("QUERY_TERMS_MAX"),
            "{refused}"
        );
    }

    #[test]
    fn everything_is_said_explicitly() {
        assert!(Query::items([]).is_err());
        assert!(matches!(
            QueryItem::new([], []),
            Err(ModelError::EmptyQueryItem { .. })
        ));
        assert!(Query::All.matches(&t("A"), &[]));
    }
}
