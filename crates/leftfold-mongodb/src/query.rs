//! Selections as filters of MongoDB.
//!
//! **Owns:** [`scope_filter`], [`query_filter`], and selecting the events of a commit. **Does not know:** pages.
//! **Invariants:** a filter finds every commit with a selected event, and perhaps others; the model's own matching then selects
//! the events.

use leftfold_model::{Query, QueryItem, RecordedEvent, Scope};
use mongodb::bson::{Bson, Document, doc};

use crate::keys;

/// Returns the filter for commits with an event of this part of the log.
pub(crate) fn scope_filter(scope: &Scope) -> Option<Document> {
    match scope {
        Scope::Stream(stream) => Some(doc! { "keys": keys::stream(stream.as_str()) }),
        Scope::Category(category) => Some(doc! { "keys": keys::category(category.as_str()) }),
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
    let types = item.type_list().iter();
    let types: Vec<String> = types.map(|name| keys::event_type(name.as_str())).collect();
    let tags = item.tag_list().iter();
    // Type and tags are maybe those of different events of the commit: the index finds them, the model's rules choose among them.
    let tags = tags.map(|tag| doc! { "keys": keys::tag(tag.as_str()) });
    let types = (!types.is_empty()).then(|| doc! { "keys": { "$in": types } });
    all_of(tags.chain(types))
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
