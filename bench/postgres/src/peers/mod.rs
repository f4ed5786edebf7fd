//! Other frameworks over PostgreSQL, each driven as its documents show.
//!
//! **Owns:** nothing but its modules. **Does not know:** how they are compared.
//! **Invariants:** each does the work of `bank`, with as many connections as our side has.

pub(crate) mod disintegrate;
pub(crate) mod es;

use sqlx::postgres::{PgPool, PgPoolOptions};

/// Connections of a peer: ours has as many.
const CONNECTIONS: u32 = 8;

async fn pool(address: &str) -> anyhow::Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(address)
        .await?)
}
