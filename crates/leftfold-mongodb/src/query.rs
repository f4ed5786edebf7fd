//! Selections as filters of MongoDB.
//!
//! **Owns:** [`scope_filter`], [`query_filter`], and selecting the events of a commit. **Does not know:** pages.
//! **Invariants:** a filter finds every commit with a selected event, and perhaps others; the model's own matching then selects
//! the events.

use leftfold_model::{Query, QueryItem, RecordedEvent, Scope};
use mongodb::bson::{Bson, Document, doc};

/// Returns the filter for commits with an event of this part of the log.
pub(crate) fn scope_filter(scope: &Scope) -> Option<Document> {
    match scope {
        Scope::Stream(stream) => Some(doc! { "events.stream": stream.as_str() }),
        Scope::Category(category) => Some(doc! { "events.category": category.as_str() }),
        _ => None,
    }
}

/// Returns the filter for commits with an event that may match.
pub(crate) fn query_filter(query: &Query) -> Option<Document> {
    let Query::Items(items) = query else {
        return None;
    };
    let alternatives: Vec<Bson> = items.iter().map(|item| item_filter(item).into()).collect();
    Some(doc! { "$or": alternatives })
}

fn item_filter(item: &QueryItem) -> Document {
    let mut filter = Document::new();
    let types: Vec<&str> = item.type_list().iter().map(|name| name.as_str()).collect();
    let tags: Vec<&str> = item.tag_list().iter().map(|tag| tag.as_str()).collect();
    if !types.is_empty() {
        filter.insert("events.type", doc! { "$in": types });
    }
    if !tags.is_empty() {
        // All tags, maybe of different events of the commit: an index finds them, the model's rules choose among them.
        let each: Vec<Bson> = tags
            .into_iter()
            .map(|tag| doc! { "events.tags": tag }.into())
            .collect();
        filter.insert("$and", each);
    }
    filter
}

/// Joins conditions, all of which must hold.
pub(crate) fn all_of(conditions: impl IntoIterator<Item = Document>) -> Document {
    let conditions: Vec<Bson> = conditions.into_iter().map(Bson::from).collect();
    if conditions.is_empty() {
        Document::new()
    } else {
        doc! { "$and": conditions }
    }
}

/// Returns whether an event is part of a selection.
pub(crate) fn selects(event: &RecordedEvent, scope: &Scope, query: &Query) -> bool {
    let in_scope = match scope {
        Scope::Stream(stream) => event.stream == *stream,
        Scope::Category(category) => event.stream.category_str() == category.as_str(),
        _ => true,
    };
    in_scope && query.matches(&event.event_type, &event.tags)
}
