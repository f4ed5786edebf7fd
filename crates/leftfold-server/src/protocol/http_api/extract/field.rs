//! Fields that many routes share: streams, expected revisions, query items, scopes.
//!
//! **Owns:** their text forms and the problem of each invalid one. **Does not know:** routes.
//! **Invariants:** a problem names the field; limits are those of the model.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use leftfold_model::{
    Category, EventType, ExpectedRevision, ModelError, Query, QueryItem, Revision, Scope,
    StreamName, Tag,
    limits::{QUERY_ITEM_TAGS_MAX, QUERY_ITEM_TYPES_MAX, QUERY_ITEMS_MAX, QUERY_TERMS_MAX},
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{super::problem::Problem, part};
use crate::{json::Bounded, state::ServerState};

/// Extractor for the name of a stream in the path.
#[derive(Debug)]
pub(in super::super) struct StreamPath(pub(in super::super) StreamName);

impl FromRequestParts<Arc<ServerState>> for StreamPath {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ServerState>,
    ) -> Result<Self, Problem> {
        let named = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let axum::extract::Path(name) =
            named.map_err(|error| Problem::invalid("stream", error.body_text()))?;
        stream("stream", name).map(Self)
    }
}

/// Parses the name of a stream.
pub(in super::super) fn stream(field: &str, name: String) -> Result<StreamName, Problem> {
    StreamName::new(name).map_err(|error| Problem::of_model(field, &error))
}

/// An expected revision: a number, `any`, `none` or `exists`.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Expected(pub(in super::super) ExpectedRevision);

/// What a stream is expected to be: the number of a revision, or a word.
#[derive(Deserialize, ToSchema)]
#[schema(as = Expected, examples("any", "none", "exists", 41))]
#[serde(
    untagged,
    expecting = "expected any, none, exists, or the number of a revision"
)]
pub(in super::super) enum ExpectedRevisionParam {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let exact = |number| ExpectedRevision::Exact(Revision::new(number));
        Ok(Self(
            match ExpectedRevisionParam::deserialize(deserializer)? {
                ExpectedRevisionParam::Number(number) => exact(number),
                ExpectedRevisionParam::Text(text) => match text.as_str() {
                    "any" => ExpectedRevision::Any,
                    "none" => ExpectedRevision::NoStream,
                    "exists" => ExpectedRevision::StreamExists,
                    text => exact(text.parse().map_err(|_| {
                        serde::de::Error::custom(format!(
                            "{text:?} is not any, none, exists, or the number of a revision"
                        ))
                    })?),
                },
            },
        ))
    }
}

/// A query item: events of one of these types with all of these tags.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct QueryItemBody {
    /// One of these; none: any.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 256)]
    types: Bounded<String, QUERY_ITEM_TYPES_MAX>,
    /// All of these.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 64)]
    tags: Bounded<String, QUERY_ITEM_TAGS_MAX>,
}

/// The alternatives of a query: each a [`QueryItemBody`], read one by one, so that no more names are held than a query may have.
pub(in super::super) type Items<'a> = Bounded<&'a RawValue, QUERY_ITEMS_MAX>;

/// Decodes a query: events that match one of the items; without items, all.
pub(in super::super) fn query(items: Option<Items<'_>>, field: &str) -> Result<Query, Problem> {
    let Some(items) = items else {
        return Ok(Query::All);
    };
    let refused = |error: ModelError| Problem::of_model(field, &error);
    let items = items.all("query", "items", "QUERY_ITEMS_MAX");
    let given = items.map_err(refused)?;
    let (mut items, mut terms) = (Vec::with_capacity(given.len()), 0);
    for (index, json) in given.into_iter().enumerate() {
        let at = format!("{field}[{index}]");
        let (types, tags) = (format!("{at}.types"), format!("{at}.tags"));
        let item = item(part(json, &at)?, [&types, &tags, &at])?;
        terms += item.type_list().len() + item.tag_list().len();
        if terms > QUERY_TERMS_MAX {
            let through = format!("query, up to item {index},");
            let limit = (QUERY_TERMS_MAX, "QUERY_TERMS_MAX");
            return Err(refused(too_many_terms(through, terms, limit)));
        }
        items.push(item);
    }
    Query::items(items).map_err(refused)
}

/// Creates the error of a query, or of several, with more types and tags than allowed.
pub(in super::super) fn too_many_terms(
    thing: String,
    got: usize,
    (max, limit): (usize, &'static str),
) -> ModelError {
    ModelError::OutOfRange {
        thing,
        unit: "types and tags",
        got,
        min: 0,
        max,
        limit,
    }
}

/// Decodes a query item; an error names the types, the tags, or the item if both are empty.
fn item(
    item: QueryItemBody,
    [types_field, tags_field, field]: [&str; 3],
) -> Result<QueryItem, Problem> {
    const THING: &str = "query item";
    let of = |field: &str| {
        let field = field.to_owned();
        move |error: ModelError| Problem::of_model(field, &error)
    };
    let types = item.types.all(THING, "types", "QUERY_ITEM_TYPES_MAX");
    let types = types.map_err(of(types_field))?.into_iter();
    let types: Vec<_> = types
        .map(EventType::new)
        .collect::<Result<_, _>>()
        .map_err(of(types_field))?;
    let tags = item.tags.all(THING, "tags", "QUERY_ITEM_TAGS_MAX");
    let tags = tags.map_err(of(tags_field))?.into_iter();
    let tags: Vec<_> = tags
        .map(Tag::new)
        .collect::<Result<_, _>>()
        .map_err(of(tags_field))?;
    QueryItem::new(types, tags).map_err(of(field))
}

/// Decodes a filter: events of one of these types with all of these tags; without any, all.
pub(in super::super) fn filter(types: Vec<String>, tags: Vec<String>) -> Result<Query, Problem> {
    if types.is_empty() && tags.is_empty() {
        return Ok(Query::All);
    }
    let given = QueryItemBody {
        types: types.into(),
        tags: tags.into(),
    };
    let item = item(given, ["type", "tag", "type"])?;
    Query::items([item]).map_err(|error| Problem::of_model("type", &error))
}

/// Decodes a scope: one stream, one category, or all.
pub(in super::super) fn scope(
    name: Option<String>,
    category: Option<String>,
) -> Result<Scope, Problem> {
    match (name, category) {
        (None, None) => Ok(Scope::All),
        (Some(name), None) => Ok(Scope::Stream(stream("stream", name)?)),
        (None, Some(category)) => Category::new(category)
            .map(Scope::Category)
            .map_err(|error| Problem::of_model("category", &error)),
        (Some(name), Some(category)) => {
            let problem = Problem::invalid("category", "not together with a stream");
            Err(problem.with_value_and_limit(category, format!("none, or no stream {name:?}")))
        }
    }
}
