//! Which statement finds the events of a selection.
//!
//! **Owns:** the SQL of reads. **Does not know:** connections, rows.
//! **Invariants:** every branch of a statement walks one index in the order of the answer and stops at the limit, so a page
//! costs what it delivers; values are parameters, never text of the statement.

use std::fmt::Write;

use leftfold_model::{Direction, Query, QueryItem, Scope};
use tokio_postgres::types::{ToSql, Type};

use crate::name::escaped;

/// Tags of an item that are looked up in the table of tags; further ones are compared on the event.
const TAGS_JOINED: usize = 3;

/// Between which places, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) positions: (i64, i64),
    /// Of one stream only.
    pub(crate) revisions: (i64, i64),
}

impl Bounds {
    pub(crate) const ALL: Self = Self {
        positions: (1, i64::MAX),
        revisions: (0, i64::MAX),
    };
}

/// A statement and its values.
pub(crate) struct Select {
    pub(crate) sql: String,
    values: Vec<Value>,
}

enum Value {
    Number(i64),
    Text(String),
    Texts(Vec<String>),
}

impl Value {
    fn param(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Number(number) => (number, Type::INT8),
            Self::Text(text) => (text, Type::TEXT),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
        }
    }
}

impl Select {
    /// The statement for at most `limit` events.
    pub(crate) fn of(
        schema: &str,
        scope: &Scope,
        query: &Query,
        direction: Direction,
        bounds: Bounds,
        limit: i64,
    ) -> Self {
        let builder = Builder {
            schema,
            order: if direction == Direction::Forwards {
                "asc"
            } else {
                "desc"
            },
            select: Self {
                sql: String::new(),
                values: Vec::new(),
            },
        };
        match (scope, query) {
            (Scope::Stream(stream), query) => {
                builder.stream(escaped(stream.as_str()).into(), query, bounds, limit)
            }
            (scope, Query::All) => builder.whole(scope, bounds, limit),
            (scope, Query::Items(items)) => builder.items(scope, items, bounds, limit),
        }
    }

    pub(crate) fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(Value::param).collect()
    }
}

const COLUMNS: &str = "e.position, e.revision, e.id, e.time, e.content_type, e.stream, e.type, e.data, e.metadata, e.tags";

struct Builder<'a> {
    schema: &'a str,
    order: &'static str,
    select: Select,
}

impl Builder<'_> {
    fn value(&mut self, value: Value) -> usize {
        self.select.values.push(value);
        self.select.values.len()
    }
    fn number(&mut self, number: i64) -> usize {
        self.value(Value::Number(number))
    }

    fn finish(mut self, sql: String) -> Select {
        self.select.sql = sql;
        self.select
    }

    /// All events, or those of a category.
    fn whole(mut self, scope: &Scope, bounds: Bounds, limit: i64) -> Select {
        let (schema, order) = (self.schema, self.order);
        let (lower, upper) = (
            self.number(bounds.positions.0),
            self.number(bounds.positions.1),
        );
        let limit = self.number(limit);
        let category = self
            .category(scope, "e")
            .map_or(String::new(), |filter| format!("{filter} and "));
        self.finish(format!(
            "select {COLUMNS} from {schema}.events e where {category}e.content_type > 0 \
             and e.position between ${lower} and ${upper} order by e.position {order} limit ${limit}"
        ))
    }

    /// Events of one stream, in the order of revisions, which is that of positions.
    fn stream(mut self, stream: String, query: &Query, bounds: Bounds, limit: i64) -> Select {
        let (schema, order) = (self.schema, self.order);
        let stream = self.value(Value::Text(stream));
        let (first, last) = (
            self.number(bounds.revisions.0),
            self.number(bounds.revisions.1),
        );
        let limit = self.number(limit);
        let mut filter = String::new();
        if bounds.positions != Bounds::ALL.positions {
            let (lower, upper) = (
                self.number(bounds.positions.0),
                self.number(bounds.positions.1),
            );
            filter = format!(" and e.position between ${lower} and ${upper}");
        }
        if let Query::Items(items) = query {
            let items: Vec<String> = items.iter().map(|item| self.matches(item)).collect();
            filter += &format!(" and ({})", items.join(" or "));
        }
        self.finish(format!(
            "select {COLUMNS} from {schema}.events e where e.stream = ${stream} and e.content_type > 0 \
             and e.revision between ${first} and ${last}{filter} order by e.revision {order} limit ${limit}"
        ))
    }

    /// Events of any stream that match an item: of each item the first ones, of those together the first ones.
    fn items(mut self, scope: &Scope, items: &[QueryItem], bounds: Bounds, limit: i64) -> Select {
        let (schema, order) = (self.schema, self.order);
        let places = Places {
            lower: self.number(bounds.positions.0),
            upper: self.number(bounds.positions.1),
            limit: self.number(limit),
        };
        let category = self.category(scope, "c");
        let branches: Vec<String> = items
            .iter()
            .map(|item| match item.tag_list() {
                [] => self.types_branch(item, &places, category.as_deref()),
                _ => self.tags_branch(item, &places, category.as_deref()),
            })
            .map(|branch| format!("({branch})"))
            .collect();
        let limit = places.limit;
        self.finish(format!(
            "select {COLUMNS} from (select position from ({}) as found order by position {order} limit ${limit}) as p \
             join {schema}.events e on e.position = p.position order by e.position {order}",
            branches.join(" union ")
        ))
    }

    fn types_branch(
        &mut self,
        item: &QueryItem,
        places: &Places,
        category: Option<&str>,
    ) -> String {
        let (schema, order) = (self.schema, self.order);
        let types = self.value(Value::Texts(texts(
            item.type_list().iter().map(|kind| kind.as_str()),
        )));
        let category = category.map_or(String::new(), |filter| format!(" and {filter}"));
        let Places {
            lower,
            upper,
            limit,
        } = places;
        format!(
            "select o.position from unnest(${types}) as t(type), lateral (select c.position from {schema}.events c \
             where c.type = t.type and c.content_type > 0 and c.position between ${lower} and ${upper}{category} \
             order by c.position {order} limit ${limit}) as o"
        )
    }

    fn tags_branch(&mut self, item: &QueryItem, places: &Places, category: Option<&str>) -> String {
        let (schema, order) = (self.schema, self.order);
        let Places {
            lower,
            upper,
            limit,
        } = places;
        let mut from = format!("{schema}.event_tags g0");
        let mut filter = format!("g0.position between ${lower} and ${upper}");
        for (n, tag) in item.tag_list().iter().take(TAGS_JOINED).enumerate() {
            let tag = self.value(Value::Text(escaped(tag.as_str()).into()));
            if n > 0 {
                let _ = write!(
                    from,
                    " join {schema}.event_tags g{n} on g{n}.position = g0.position"
                );
            }
            let _ = write!(filter, " and g{n}.tag = ${tag}");
        }
        let rest = item.tag_list().get(TAGS_JOINED..).unwrap_or_default();
        if !rest.is_empty() || !item.type_list().is_empty() || category.is_some() {
            let _ = write!(from, " join {schema}.events c on c.position = g0.position");
        }
        if !rest.is_empty() {
            let rest = self.value(Value::Texts(texts(rest.iter().map(|tag| tag.as_str()))));
            let _ = write!(filter, " and c.tags @> ${rest}");
        }
        if !item.type_list().is_empty() {
            let types = self.value(Value::Texts(texts(
                item.type_list().iter().map(|kind| kind.as_str()),
            )));
            let _ = write!(filter, " and c.type = any (${types})");
        }
        if let Some(category) = category {
            let _ = write!(filter, " and {category}");
        }
        format!(
            "select g0.position from {from} where {filter} order by g0.position {order} limit ${limit}"
        )
    }

    /// An item as a condition on the event itself.
    fn matches(&mut self, item: &QueryItem) -> String {
        let mut parts = Vec::new();
        if !item.type_list().is_empty() {
            let types = self.value(Value::Texts(texts(
                item.type_list().iter().map(|kind| kind.as_str()),
            )));
            parts.push(format!("e.type = any (${types})"));
        }
        if !item.tag_list().is_empty() {
            let tags = self.value(Value::Texts(texts(
                item.tag_list().iter().map(|tag| tag.as_str()),
            )));
            parts.push(format!("e.tags @> ${tags}"));
        }
        format!("({})", parts.join(" and "))
    }

    fn category(&mut self, scope: &Scope, alias: &str) -> Option<String> {
        let Scope::Category(category) = scope else {
            return None;
        };
        let category = self.value(Value::Text(escaped(category.as_str()).into()));
        Some(format!(
            "{}.category({alias}.stream) = ${category}",
            self.schema
        ))
    }
}

struct Places {
    lower: usize,
    upper: usize,
    limit: usize,
}

fn texts<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(|name| escaped(name).into()).collect()
}
