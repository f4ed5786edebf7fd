//! Leases: one holder at a time, by the clock of the database.
//!
//! **Owns:** [`Leases`], [`Lease`]. **Does not know:** what is leased.
//! **Invariants:** only the database compares times. Each new holder has a higher term, a fencing token. Renewing never
//! takes a lease that has expired.

use std::{sync::Arc, time::Duration};

use tokio_postgres::types::Type;

use crate::{
    DatabaseError,
    name::escaped,
    pool::Pool,
    schema::quoted,
    value::{number, to_bigint},
};

/// Who does what, when only one process may.
#[derive(Debug, Clone)]
pub struct Leases {
    pool: Arc<Pool>,
    table: String,
}

/// A lease that was held when it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// What is leased.
    pub name: String,
    /// Who holds it.
    pub holder: String,
    /// The how many-th holding this is; compare it where effects arrive.
    pub term: u64,
}

impl Leases {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        let table = format!("{}.leases", quoted(pool.options().schema()));
        Self { pool, table }
    }

    /// Takes the lease for so long, if it is free, has run out, or is this holder's already (then it is prolonged).
    ///
    /// # Errors
    /// [`DatabaseError`]; the lease may then have been taken: ask again.
    pub async fn acquire(
        &self,
        name: &str,
        holder: &str,
        time: Duration,
    ) -> Result<Option<Lease>, DatabaseError> {
        let sql = format!(
            "insert into {} as l (name, holder, term, expires_at) \
             values ($1, $2, 1, clock_timestamp() + $3 * interval '1 microsecond') \
             on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at, \
             term = l.term + case when l.holder = excluded.holder and l.expires_at > clock_timestamp() then 0 else 1 end \
             where l.holder = excluded.holder or l.expires_at <= clock_timestamp() returning term",
            self.table
        );
        let pooled = self.pool.get().await?;
        let params = [
            (&escaped(name) as _, Type::TEXT),
            (&escaped(holder) as _, Type::TEXT),
            (&micros(time) as _, Type::INT8),
        ];
        let rows = pooled.session()?.query(&sql, &params).await?;
        let term = rows.first().map(|row| row.try_get(0)).transpose()?;
        Ok(term.map(|term| Lease {
            name: name.to_owned(),
            holder: holder.to_owned(),
            term: number(term),
        }))
    }

    /// Extends a lease. Returns `false`, and changes nothing, if it has expired or has another holder.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, DatabaseError> {
        let sql = format!(
            "update {} set expires_at = clock_timestamp() + $4 * interval '1 microsecond' \
             where name = $1 and holder = $2 and term = $3 and expires_at > clock_timestamp() returning term",
            self.table
        );
        let pooled = self.pool.get().await?;
        let params = [
            (&escaped(&lease.name) as _, Type::TEXT),
            (&escaped(&lease.holder) as _, Type::TEXT),
            (&to_bigint(lease.term) as _, Type::INT8),
            (&micros(time) as _, Type::INT8),
        ];
        let rows = pooled.session()?.query(&sql, &params).await?;
        Ok(!rows.is_empty())
    }

    /// Gives a lease back, if it is still held.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn release(&self, lease: &Lease) -> Result<(), DatabaseError> {
        let sql = format!(
            "update {} set expires_at = clock_timestamp() where name = $1 and holder = $2 and term = $3",
            self.table
        );
        let pooled = self.pool.get().await?;
        let params = [
            (&escaped(&lease.name) as _, Type::TEXT),
            (&escaped(&lease.holder) as _, Type::TEXT),
            (&to_bigint(lease.term) as _, Type::INT8),
        ];
        pooled.session()?.query(&sql, &params).await?;
        Ok(())
    }
}

/// A duration in microseconds, at most a hundred years, which the database can add to its clock.
fn micros(time: Duration) -> i64 {
    const CENTURY: i64 = 1_000_000 * 86_400 * 36_500;
    i64::try_from(time.as_micros())
        .unwrap_or(CENTURY)
        .min(CENTURY)
}
