//! Comparing what the schema keeps twice, and what must be dense.
//!
//! **Owns:** [`Report`], [`Finding`], and the questions. **Does not know:** how to mend.
//! **Invariants:** changes nothing; one snapshot of the database for all questions.

use std::sync::Arc;

use leftfold_model::Position;

use crate::{connect::Session, error::Failure, pool::Pool, schema::quoted, value::number};

/// What was looked at, and what did not agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Events that were counted.
    pub events: u64,
    /// Events that were erased: their places are still taken.
    pub erased: u64,
    /// The newest position.
    pub head: Position,
    /// What does not agree; empty if all is well.
    pub findings: Vec<Finding>,
}

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was compared.
    pub rule: &'static str,
    /// How many rows break it.
    pub rows: u64,
}

/// All places that are taken, by events and by erased ones.
const PLACES: &str = "(select stream, revision, position, id from {s}.events \
                      union all select stream, revision, position, id from {s}.erased)";

const RULES: [(&str, &str); 6] = [
    (
        "positions are dense from 1",
        "select coalesce(max(position), 0) - count(*) + count(*) filter (where position < 1) from {places} p",
    ),
    (
        "revisions of a stream are dense from 0 and rise with positions",
        "select count(*) from (select revision, row_number() over (partition by stream order by position) - 1 as should \
         from {places} p) r where revision <> should",
    ),
    (
        "ids are unique",
        "select count(*) - count(distinct id) from {places} p",
    ),
    (
        "every tag of an event is in the table of tags",
        "select count(*) from {s}.events e, unnest(e.tags) t(tag) where not exists \
         (select from {s}.event_tags g where g.tag = t.tag and g.position = e.position)",
    ),
    (
        "every row of the table of tags stands for a tag of an event",
        "select count(*) from {s}.event_tags g where not exists \
         (select from {s}.events e where e.position = g.position and g.tag = any (e.tags))",
    ),
    (
        "every tag of an erased event stands for a place that is taken",
        "select count(*) from {s}.erased_tags g where not exists (select from {s}.erased e where e.position = g.position) \
         and not exists (select from {s}.events e where e.position = g.position and e.content = 0)",
    ),
];

pub(crate) async fn verify(pool: &Arc<Pool>) -> Result<Report, Failure> {
    // A connection of its own: the limits of time are lifted, and it is not given back.
    let link = Session::open(pool.options()).await?;
    let begin = "begin isolation level repeatable read read only; set local statement_timeout = 0";
    link.client.batch_execute(begin).await?;
    let schema = quoted(pool.options().schema());
    let there = format!("select count(*) from {schema}.events where content > 0");
    let emptied = format!(
        "select (select count(*) from {schema}.erased) + (select count(*) from {schema}.events where content = 0)"
    );
    let mut report = Report {
        events: count(&link, &there).await?,
        erased: count(&link, &emptied).await?,
        ..Report::default()
    };
    let head = format!("select coalesce(max(position), 0) from {schema}.events");
    report.head = Position::new(count(&link, &head).await?);
    for (rule, sql) in RULES {
        let sql = sql.replace("{places}", PLACES).replace("{s}", &schema);
        let rows = count(&link, &sql).await?;
        if rows > 0 {
            report.findings.push(Finding { rule, rows });
        }
    }
    link.client.batch_execute("commit").await?;
    Ok(report)
}

async fn count(link: &Session, sql: &str) -> Result<u64, Failure> {
    let row = link.client.query_typed_one(sql, &[]).await?;
    let count: i64 = row.try_get(0)?;
    Ok(number(count.abs()))
}
