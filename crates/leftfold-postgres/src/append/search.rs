//! Searching the log for what the conditions of an append ask for, outside of the group.
//!
//! **Owns:** [`search`], and [`Searched`], what it found. **Does not know:** who waits for it; the lock of appends.
//! **Invariants:** events never change, so what was found up to a position stays true in the same log. The id of the event
//! there tells whether it is the same log. An event that matches is where the next search begins, so the group finds it.

use std::sync::Arc;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::columns::ItemColumns;
use crate::{error::Failure, pool::Pool, read, schema::quoted};

/// Up to where the items of an append's conditions were searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Searched {
    /// The position of the newest event of the log, or 0.
    pub(crate) through: i64,
    /// The id of that event.
    pub(crate) id: Option<Uuid>,
    /// For each item of all conditions, the position up to which no event matches.
    pub(crate) afters: Vec<i64>,
}

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

impl ItemColumns {
    /// Returns the position behind which each item has to be searched for next, after a search up to `through`.
    fn afters(&self, through: i64, matches: &[Option<i64>]) -> Vec<i64> {
        let asks_for_all = self
            .types
            .iter()
            .zip(&self.tags)
            .map(|(types, tags)| types.is_none() && tags.is_none());
        let items = self.after.iter().zip(asks_for_all).zip(matches);
        items
            .map(|((&after, asks_for_all), first)| match first {
                // Not searched for.
                Some(0) => after,
                _ if asks_for_all => after,
                Some(position) => position - 1,
                None => after.max(through),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_goes_on_where_the_last_one_ended_or_at_the_event_that_it_found() {
        let some = Some("{}".to_owned());
        let items = ItemColumns {
            append: vec![1; 5],
            condition: vec![0; 5],
            after: vec![3, 3, 3, 3, 50],
            types: vec![some.clone(), some.clone(), some.clone(), None, some],
            tags: vec![None; 5],
        };
        let matches = [None, Some(7), Some(0), None, None];
        assert_eq!(items.afters(20, &matches), [20, 6, 3, 3, 50]);
    }
}
