//! Searching the log for what the conditions of an append ask for, outside of the group.
//!
//! **Owns:** [`search`]. **Does not know:** who waits for it; the lock of appends.
//! **Invariants:** events never change, so what was found up to a position stays true in the same log. The id of the event
//! there tells whether it is the same log. An event that matches is where the next search begins, so the group finds it.

use std::sync::Arc;

use tokio_postgres::types::Type;

use super::items::{ItemColumns, Searched};
use crate::{error::Failure, pool::Pool, read, schema::quoted};

/// Searches for items up to the head of the log. Retries while the server is unreachable, up to the reconnect timeout.
pub(crate) async fn search(pool: &Arc<Pool>, items: &ItemColumns) -> Result<Searched, Failure> {
    let sql = format!(
        "select through, through_id, matches from {}.search($1, $2, $3, $4, $5, null)",
        quoted(pool.options().schema())
    );
    let params = [
        (&items.append as _, Type::INT4_ARRAY),
        (&items.condition as _, Type::INT4_ARRAY),
        (&items.after as _, Type::INT8_ARRAY),
        (&items.types as _, Type::TEXT_ARRAY),
        (&items.tags as _, Type::TEXT_ARRAY),
    ];
    let rows = read::retry(pool, || async {
        pool.get().await?.session()?.query(&sql, &params).await
    });
    let rows = rows.await?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::UnexpectedResponse("no row".to_owned()))?;
    let through = row.try_get(0)?;
    let matches = row.try_get::<_, Vec<Option<i64>>>(2)?;
    if matches.len() != items.after.len() {
        let reason = format!("{} of {} items", matches.len(), items.after.len());
        return Err(Failure::UnexpectedResponse(reason));
    }
    Ok(Searched {
        through,
        id: row.try_get(1)?,
        afters: items.afters(through, &matches),
    })
}
