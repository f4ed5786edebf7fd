//! Decoding queries and conditions.
//!
//! **Owns:** what an empty list means to UmaDB's clients: everything. **Does not know:** how the store evaluates queries.

use leftfold_model::{
    AppendCondition, ConflictToken, EventType, ModelError, Position, Query, QueryItem, Tag,
};
use leftfold_proto::umadb::v1 as wire;

/// Decodes a query; a missing one, one without items, and one with an empty item all match everything.
pub(super) fn query(asked: Option<wire::Query>) -> Result<Query, ModelError> {
    let items = asked.unwrap_or_default().items;
    let asks_nothing = |item: &wire::QueryItem| item.types.is_empty() && item.tags.is_empty();
    if items.is_empty() || items.iter().any(asks_nothing) {
        return Ok(Query::All);
    }
    let items: Vec<_> = items.into_iter().map(item).collect::<Result<_, _>>()?;
    Query::items(items)
}

fn item(asked: wire::QueryItem) -> Result<QueryItem, ModelError> {
    let types = EventType::parse_all(asked.types)?;
    let tags = Tag::parse_all(asked.tags)?;
    QueryItem::new(types, tags)
}

/// Decodes a condition; without `after` every matching event fails it.
pub(super) fn condition(asked: wire::AppendCondition) -> Result<AppendCondition, ModelError> {
    let after = asked
        .after
        .map_or(ConflictToken::START, |after| Position::new(after).into());
    Ok(AppendCondition::new(
        query(asked.fail_if_events_match)?,
        after,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(types: &[&str], tags: &[&str]) -> wire::QueryItem {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        wire::QueryItem {
            types: texts(types),
            tags: texts(tags),
        }
    }

    #[test]
    fn a_query_that_names_nothing_asks_for_everything() {
        assert_eq!(query(None), Ok(Query::All));
        assert_eq!(query(Some(wire::Query::default())), Ok(Query::All));
        let items = vec![item(&["A"], &["x"]), item(&[], &[])];
        assert_eq!(query(Some(wire::Query { items })), Ok(Query::All));
    }

    #[test]
    fn a_name_that_no_event_can_have_is_refused() {
        let items = vec![item(&[""], &[])];
        assert!(query(Some(wire::Query { items })).is_err());
        let items = vec![item(&[], &[&"t".repeat(256)])];
        let refused = query(Some(wire::Query { items })).unwrap_err().to_string();
        assert!(refused.contains("TAG_BYTES_MAX"), "{refused}");
    }
}
