//! SQLite: what most people embed.
//!
//! **Owns:** a log in one table, unique (stream, revision), WAL, `synchronous=FULL`. **Does not know:** types.
//! **Invariants:** each append is one transaction on the one connection that writes; readers have a connection each.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, params};

use super::{Engine, Loaded, MANY_STREAMS, Shape, Writer, payload};

pub(crate) struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

fn connect(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536;",
    )?;
    Ok(connection)
}

impl Sqlite {
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join("log.sqlite");
        let writer = connect(&path)?;
        writer.execute_batch(
            "CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER NOT NULL, \
             revision INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (stream, revision));",
        )?;
        Ok(Self {
            path,
            writer: Mutex::new(writer),
            readers: Mutex::default(),
        })
    }

    fn write(&self, accounts: impl Iterator<Item = u64>, payload: &[u8]) -> anyhow::Result<i64> {
        let mut connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO events (stream, revision, data) VALUES \
                 (?1, (SELECT coalesce(max(revision) + 1, 0) FROM events WHERE stream = ?1), ?2)",
            )?;
            for account in accounts {
                insert.execute(params![i64::try_from(account)?, payload])?;
            }
        }
        let position = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(position)
    }

    fn with_reader<R>(
        &self,
        read: impl FnOnce(&Connection) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let idle = self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let result = read(&connection);
        self.readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        result
    }
}

fn walk(connection: &Connection, sql: &str, account: Option<u64>) -> anyhow::Result<(u64, u64)> {
    let mut statement = connection.prepare_cached(sql)?;
    let account = account.map(i64::try_from).transpose()?;
    let mut rows = match account {
        Some(account) => statement.query(params![account])?,
        None => statement.query([])?,
    };
    let (mut events, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        events += 1;
        bytes += row.get_ref(0)?.as_blob()?.len() as u64;
    }
    Ok((events, bytes))
}

impl Engine for Sqlite {
    fn append(&self, shape: &Shape, writer: &mut Writer) -> anyhow::Result<()> {
        let account = if shape.many_streams {
            writer.chance() % MANY_STREAMS
        } else {
            writer.number
        };
        let payload = payload(shape.payload, writer.appends);
        let last = self.write(std::iter::repeat_n(account, shape.batch), &payload)?;
        writer.last = u64::try_from(last)?;
        writer.appends += 1;
        Ok(())
    }

    fn load(&self, events: &[Loaded], bytes: usize) -> anyhow::Result<()> {
        self.write(events.iter().map(|event| event.account), &payload(bytes, 0))
            .map(drop)
    }

    fn scan(&self) -> anyhow::Result<(u64, u64)> {
        self.with_reader(|connection| {
            walk(
                connection,
                "SELECT data FROM events ORDER BY position",
                None,
            )
        })
    }

    fn read_tag(&self, account: u64) -> anyhow::Result<u64> {
        let sql = "SELECT data FROM events WHERE stream = ?1 ORDER BY revision";
        Ok(self
            .with_reader(|connection| walk(connection, sql, Some(account)))?
            .0)
    }

    fn read_type(&self, _: &str, _: Option<u64>) -> anyhow::Result<u64> {
        anyhow::bail!("SQLite's rows have no query by type")
    }

    fn follow(&self, _: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
        anyhow::bail!("SQLite has no subscriptions")
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}
