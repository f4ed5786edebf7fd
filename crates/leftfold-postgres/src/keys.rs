//! Keys of subjects in a table.
//!
//! **Owns:** [`PostgresKeys`]: its schema, and creating a key by compare-and-set. **Does not know:** what a key seals.
//! **Invariants:** a subject has one row, and a row one key; no statement and no row has a subject in clear, only its digest;
//! keys and events are never in one schema. Every call may be repeated, so each is while the server is unreachable.

use std::{fmt, sync::Arc};

use futures_core::future::BoxFuture;
use leftfold_store::{
    ErrorChain,
    keys::{KeyError, KeyId, KeyStore, Subject, SubjectKey},
};
use sha2::{Digest, Sha256};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    OpenError, PostgresOptions,
    error::Failure,
    pool::Pool,
    read::retry,
    schema::quoted,
    session::{MAINTENANCE_LIMIT, Session},
};

/// Attempts to read or create a key that others create and destroy at the same time.
const ATTEMPTS: usize = 100;

/// Keys of subjects in a PostgreSQL database, for several processes that use one store.
///
/// Keep them in another database than the log, with backups of its own; a schema of its own is the least. The schema is that
/// of the address (`leftfold_schema`), and one that holds a log is refused. Clones are the same keys.
///
/// A subject is stored as the SHA-256 of its parts, never in clear.
///
/// # What `destroy` leaves
/// The row is deleted, so no call returns the key. The server keeps the bytes of deleted rows until `VACUUM` and later writes
/// replace them, and in its write-ahead log, replicas and backups. `docs/erasure.md` says what an operator has to see to.
///
/// # Example
/// ```no_run
/// # async fn run() -> Result<(), leftfold_postgres::OpenError> {
/// use leftfold_postgres::PostgresKeys;
/// let keys = PostgresKeys::open("postgres://app@keys.example.org/keys?leftfold_schema=keys").await?;
/// # let _ = keys; Ok(())
/// # }
/// ```
///
/// # Cost
/// One round trip for each call, and one commit for each key that is created or destroyed.
#[derive(Clone)]
pub struct PostgresKeys {
    pool: Arc<Pool>,
    table: String,
}

impl fmt::Debug for PostgresKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresKeys").field(&self.table).finish()
    }
}

impl PostgresKeys {
    /// Opens the keys at an address that [`PostgresOptions`] parses. Creates their schema and table if necessary.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(address: &str) -> Result<Self, OpenError> {
        Self::open_with(address.parse()?).await
    }

    /// Opens the keys with these options. Creates their schema and table if necessary and allowed.
    ///
    /// # Errors
    /// [`OpenError`] if the server is unreachable, unsafe or unsupported, or if the schema holds a log.
    pub async fn open_with(options: PostgresOptions) -> Result<Self, OpenError> {
        options.check_schema()?;
        let session = Session::open(&options).await?;
        ensure_table(&session, &options).await?;
        let table = format!("{}.subject_keys", quoted(options.schema()));
        let pool = Pool::new(options);
        Ok(Self { pool, table })
    }

    async fn select(&self, subject: &Subject) -> Result<Option<SubjectKey>, Failure> {
        let sql = format!("select id, secret from {} where subject = $1", self.table);
        let digest = &digest(subject)[..];
        let pooled = self.pool.get().await?;
        let params = [(&digest as _, Type::BYTEA)];
        let rows = pooled.session()?.query(&sql, &params).await?;
        rows.first().map(subject_key).transpose()
    }

    /// Stores a key unless the subject has one; returns whether it did.
    async fn insert(&self, subject: &Subject, key: &SubjectKey) -> Result<bool, Failure> {
        let sql = format!(
            "insert into {} (subject, id, secret) values ($1, $2, $3) on conflict (subject) do nothing returning 1",
            self.table
        );
        let (digest, id, secret) = (
            &digest(subject)[..],
            Uuid::from_bytes(key.id),
            &key.secret[..],
        );
        let pooled = self.pool.get().await?;
        let params = [
            (&digest as _, Type::BYTEA),
            (&id as _, Type::UUID),
            (&secret as _, Type::BYTEA),
        ];
        let rows = pooled.session()?.query(&sql, &params).await?;
        Ok(!rows.is_empty())
    }

    async fn select_all(&self, ids: &[KeyId]) -> Result<Vec<SubjectKey>, Failure> {
        let sql = format!("select id, secret from {} where id = any($1)", self.table);
        let ids: Vec<_> = ids.iter().copied().map(Uuid::from_bytes).collect();
        let pooled = self.pool.get().await?;
        let params = [(&ids as _, Type::UUID_ARRAY)];
        let rows = pooled.session()?.query(&sql, &params).await?;
        rows.iter().map(subject_key).collect()
    }

    async fn delete(&self, subject: &Subject) -> Result<(), Failure> {
        let sql = format!("delete from {} where subject = $1", self.table);
        let digest = &digest(subject)[..];
        let pooled = self.pool.get().await?;
        let params = [(&digest as _, Type::BYTEA)];
        pooled.session()?.query(&sql, &params).await.map(drop)
    }
}

async fn ensure_table(session: &Session, options: &PostgresOptions) -> Result<(), OpenError> {
    let schema = quoted(options.schema());
    let (keys, log) = (format!("{schema}.subject_keys"), format!("{schema}.events"));
    let exists = "select to_regclass($1) is not null, to_regclass($2) is not null";
    let params = [(&keys as _, Type::TEXT), (&log as _, Type::TEXT)];
    let rows = session.query(exists, &params).await;
    let rows = rows.map_err(OpenError::connect)?;
    let [has_keys, has_log] = [0, 1].map(|column| {
        let value = rows.first().map(|row| row.try_get::<_, bool>(column));
        matches!(value, Some(Ok(true)))
    });
    if has_log {
        return Err(OpenError::Unsupported {
            what: "schema of keys",
            found: format!("{} with a log", options.schema()),
            needed: "a schema of its own, best in another database",
        });
    }
    if has_keys {
        return Ok(());
    }
    // A statement string is one transaction.
    let create = format!(
        "select pg_advisory_xact_lock(1279677014, hashtext('{0} keys')); \
         create schema if not exists {schema}; \
         create table if not exists {keys} (subject bytea primary key check (length(subject) = 32), id uuid not null unique, \
         secret bytea not null check (length(secret) = 32), created_at timestamptz not null default clock_timestamp())",
        options.schema().replace('\'', "''")
    );
    let created = session.batch_execute(&create, MAINTENANCE_LIMIT).await;
    created.map_err(|failure| OpenError::Migration {
        version: 0,
        cause: failure.into(),
    })
}

/// The digest of a subject, each part with its length.
fn digest(subject: &Subject) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&subject.tenant, &subject.kind, &subject.id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

fn subject_key(row: &Row) -> Result<SubjectKey, Failure> {
    let secret: &[u8] = row.try_get(1)?;
    Ok(SubjectKey {
        id: row.try_get::<_, Uuid>(0)?.into_bytes(),
        secret: secret
            .try_into()
            .map_err(|_| Failure::UnexpectedResponse("secret of a key".to_owned()))?,
    })
}

fn unavailable(failure: Failure) -> KeyError {
    KeyError::Unavailable {
        reason: ErrorChain(&failure).to_string(),
    }
}

impl KeyStore for PostgresKeys {
    fn key<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<SubjectKey, KeyError>> {
        Box::pin(async move {
            for _ in 0..ATTEMPTS {
                let existing = retry(&self.pool, || self.select(subject)).await;
                if let Some(key) = existing.map_err(unavailable)? {
                    return Ok(key);
                }
                let key = SubjectKey::random()?;
                let inserted = retry(&self.pool, || self.insert(subject, &key)).await;
                if inserted.map_err(unavailable)? {
                    return Ok(key);
                }
                // Another process created one in between, or this one did and its connection broke.
            }
            Err(KeyError::Unavailable {
                reason: format!("a key was created and destroyed {ATTEMPTS} times meanwhile"),
            })
        })
    }

    fn existing<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<SubjectKey>, KeyError>> {
        Box::pin(async move {
            let existing = retry(&self.pool, || self.select(subject)).await;
            existing.map_err(unavailable)
        })
    }

    fn find<'a>(&'a self, ids: &'a [KeyId]) -> BoxFuture<'a, Result<Vec<SubjectKey>, KeyError>> {
        Box::pin(async move {
            let found = retry(&self.pool, || self.select_all(ids)).await;
            found.map_err(unavailable)
        })
    }

    fn destroy<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<(), KeyError>> {
        Box::pin(async move {
            let deleted = retry(&self.pool, || self.delete(subject)).await;
            deleted.map_err(unavailable)
        })
    }
}
