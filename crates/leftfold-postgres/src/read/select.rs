//! The statement that reads a page.
//!
//! **Owns:** the SQL of reads. **Does not know:** connections, rows.
//! **Invariants:** values are parameters, never text of the statement. A page of the log or of a stream walks one index in
//! the order of its rows. A page of a query or a category costs what the rarest of its terms costs: the function `find` of
//! the schema searches by it, whatever plan the server prefers.

use leftfold_model::{Direction, Query, QueryItem, Scope};
use tokio_postgres::types::{ToSql, Type};

use super::request::{Bounds, PageRequest};
use crate::name::escaped;

/// A statement and its parameters.
pub(crate) struct Select {
    pub(crate) sql: String,
    values: Vec<Value>,
}

enum Value {
    Number(i64),
    Text(String),
    Texts(Vec<String>),
    OptionalText(Option<String>),
    OptionalTexts(Option<Vec<String>>),
}

impl Value {
    fn param(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Number(number) => (number, Type::INT8),
            Self::Text(text) => (text, Type::TEXT),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
            Self::OptionalText(text) => (text, Type::TEXT),
            Self::OptionalTexts(texts) => (texts, Type::TEXT_ARRAY),
        }
    }
}

impl Select {
    /// Returns the statement for a page.
    pub(crate) fn of(schema: &str, request: &PageRequest) -> Self {
        let PageRequest {
            ref scope,
            ref query,
            direction,
            bounds,
            limit,
            ..
        } = *request;
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
            (Scope::Category(_), Query::All) => builder.items(scope, &[None], bounds, limit),
            (scope, Query::Items(items)) => {
                let items: Vec<_> = items.iter().map(Some).collect();
                builder.items(scope, &items, bounds, limit)
            }
            (_, Query::All) => builder.whole(bounds, limit),
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

    /// All events.
    fn whole(mut self, bounds: Bounds, limit: i64) -> Select {
        let (schema, order) = (self.schema, self.order);
        let (lower, upper) = (
            self.number(bounds.positions.0),
            self.number(bounds.positions.1),
        );
        let limit = self.number(limit);
        self.finish(format!(
            "select {COLUMNS} from {schema}.events e where e.content_type > 0 \
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

    /// Events of any stream that are of the category and match an item: the first ones of each item, and of those the first.
    ///
    /// `None` stands for an item that demands nothing.
    fn items(
        mut self,
        scope: &Scope,
        items: &[Option<&QueryItem>],
        bounds: Bounds,
        limit: i64,
    ) -> Select {
        let (schema, order) = (self.schema, self.order);
        let category = match scope {
            Scope::Category(category) => Some(escaped(category.as_str()).into()),
            _ => None,
        };
        let category = self.value(Value::OptionalText(category));
        let (lower, upper) = (
            self.number(bounds.positions.0),
            self.number(bounds.positions.1),
        );
        let limit = self.number(limit);
        let descending = order == "desc";
        let branches: Vec<String> = items
            .iter()
            .map(|item| {
                let tags = item.map_or(&[][..], QueryItem::tag_list);
                let tags = texts(tags.iter().map(|tag| tag.as_str()));
                let types = item.map_or(&[][..], QueryItem::type_list);
                let types = texts(types.iter().map(|kind| kind.as_str()));
                let [tags, types] = [tags, types].map(|texts| {
                    self.value(Value::OptionalTexts(
                        Some(texts).filter(|texts| !texts.is_empty()),
                    ))
                });
                format!(
                    "select f.position from unnest({schema}.find(${tags}, ${types}, ${category}, ${lower}, ${upper}, \
                     {descending}, false, ${limit}::int)) as f(position)"
                )
            })
            .collect();
        self.finish(format!(
            "select {COLUMNS} from (select position from ({}) as found order by position {order} limit ${limit}) as p \
             join {schema}.events e on e.position = p.position order by e.position {order}",
            branches.join(" union ")
        ))
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
}

fn texts<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(|name| escaped(name).into()).collect()
}
