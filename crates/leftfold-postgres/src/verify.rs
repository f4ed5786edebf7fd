//! Checking the invariants of the stored log.
//!
//! **Owns:** [`Report`], [`Finding`], and the checks. **Does not know:** how to repair.
//! **Invariants:** changes nothing. All checks see the same snapshot of the database.

use std::sync::Arc;

use leftfold_model::Position;

use crate::{
    error::Failure,
    pool::Pool,
    schema::quoted,
    session::{MAINTENANCE_LIMIT, Session},
    value::number,
};

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Number of events, without erased ones.
    pub events: u64,
    /// Number of erased events, whose positions stay taken.
    pub erased: u64,
    /// Position of the newest event.
    pub head: Position,
    /// Violated invariants; empty if the log is sound.
    pub findings: Vec<Finding>,
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The invariant.
    pub rule: &'static str,
    /// How many rows violate it.
    pub rows: u64,
}

/// The positions of all events, erased ones included.
const PLACES: &str = "(select stream, revision, position, id from {s}.events \
                      union all select stream, revision, position, id from {s}.erased)";

const RULES: [(&str, &str); 7] = [
    (
        "every event has a known content type, an id, and names that can be decoded",
        "select count(*) from {s}.events e where e.content_type not between 0 and 4 \
         or not {s}.is_name(e.stream, 1024) or not {s}.is_name(e.type, 255) or array_ndims(e.tags) > 1 \
         or e.id = '00000000-0000-0000-0000-000000000000'",
    ),
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
        "every row of the table of tags belongs to a tag of an event",
        "select count(*) from {s}.event_tags g where not exists \
         (select from {s}.events e where e.position = g.position and g.tag = any (e.tags))",
    ),
    (
        "every row of the table of erased tags belongs to an erased event",
        "select count(*) from {s}.erased_tags g where not exists (select from {s}.erased e where e.position = g.position) \
         and not exists (select from {s}.events e where e.position = g.position and e.content_type = 0)",
    ),
];

pub(crate) async fn verify(pool: &Arc<Pool>) -> Result<Report, Failure> {
    // A connection outside the pool, because its time limit is lifted.
    let session = Session::open(pool.options()).await?;
    let begin = "begin isolation level repeatable read read only; set local statement_timeout = 0";
    session.batch_execute(begin, MAINTENANCE_LIMIT).await?;
    let schema = quoted(pool.options().schema());
    let present = format!("select count(*) from {schema}.events where content_type > 0");
    let emptied = format!(
        "select (select count(*) from {schema}.erased) + (select count(*) from {schema}.events where content_type = 0)"
    );
    let mut report = Report {
        events: count(&session, &present).await?,
        erased: count(&session, &emptied).await?,
        ..Report::default()
    };
    let head = format!("select coalesce(max(position), 0) from {schema}.events");
    report.head = Position::new(count(&session, &head).await?);
    for (rule, sql) in RULES {
        let sql = sql.replace("{places}", PLACES).replace("{s}", &schema);
        let rows = count(&session, &sql).await?;
        if rows > 0 {
            report.findings.push(Finding { rule, rows });
        }
    }
    session.batch_execute("commit", MAINTENANCE_LIMIT).await?;
    Ok(report)
}

async fn count(session: &Session, sql: &str) -> Result<u64, Failure> {
    let row = async { Ok(session.client.query_typed_one(sql, &[]).await?) };
    let row = session.bounded_by(MAINTENANCE_LIMIT, row).await?;
    let count: i64 = row.try_get(0)?;
    Ok(number(count.abs()))
}
