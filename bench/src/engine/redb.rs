//! `redb`: what people embed when they build an event log over a key-value store.
//!
//! **Owns:** a log over three tables: events by position, revisions by stream, positions by tag.
//! **Does not know:** types; nothing asks for them here. **Invariants:** each append is one transaction of full durability.

use std::path::Path;

use redb::{Database, MultimapTableDefinition, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Engine, Loaded, MANY_STREAMS, Shape, Writer, payload};

const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
const STREAMS: TableDefinition<'_, (u64, u64), u64> = TableDefinition::new("streams");
const TAGS: MultimapTableDefinition<'_, u64, u64> = MultimapTableDefinition::new("tags");

pub(crate) struct Redb {
    database: Database,
}

impl Redb {
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let database = Database::create(directory.join("log.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(EVENTS)?;
        transaction.open_table(STREAMS)?;
        transaction.open_multimap_table(TAGS)?;
        transaction.commit()?;
        Ok(Self { database })
    }

    fn write(&self, accounts: impl Iterator<Item = u64>, payload: &[u8]) -> anyhow::Result<u64> {
        let transaction = self.database.begin_write()?;
        let mut position;
        {
            let mut events = transaction.open_table(EVENTS)?;
            let mut streams = transaction.open_table(STREAMS)?;
            let mut tags = transaction.open_multimap_table(TAGS)?;
            position = events.last()?.map_or(0, |(last, _)| last.value());
            for account in accounts {
                position += 1;
                let last = streams
                    .range((account, 0)..=(account, u64::MAX))?
                    .next_back();
                let revision = last.transpose()?.map_or(0, |(key, _)| key.value().1 + 1);
                events.insert(position, payload)?;
                streams.insert((account, revision), position)?;
                tags.insert(account, position)?;
            }
        }
        transaction.commit()?;
        Ok(position)
    }
}

impl Engine for Redb {
    fn append(&self, shape: &Shape, writer: &mut Writer) -> anyhow::Result<()> {
        let account = if shape.many_streams {
            writer.chance() % MANY_STREAMS
        } else {
            writer.number
        };
        let payload = payload(shape.payload, writer.appends);
        writer.last = self.write(std::iter::repeat_n(account, shape.batch), &payload)?;
        writer.appends += 1;
        Ok(())
    }

    fn load(&self, events: &[Loaded], bytes: usize) -> anyhow::Result<()> {
        self.write(events.iter().map(|event| event.account), &payload(bytes, 0))
            .map(drop)
    }

    fn scan(&self) -> anyhow::Result<(u64, u64)> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(EVENTS)?;
        let (mut events, mut bytes) = (0, 0);
        for entry in table.iter()? {
            events += 1;
            bytes += entry?.1.value().len() as u64;
        }
        Ok((events, bytes))
    }

    fn read_tag(&self, account: u64) -> anyhow::Result<u64> {
        let transaction = self.database.begin_read()?;
        let (tags, table) = (
            transaction.open_multimap_table(TAGS)?,
            transaction.open_table(EVENTS)?,
        );
        let mut events = 0;
        for position in tags.get(account)? {
            events += u64::from(table.get(position?.value())?.is_some());
        }
        Ok(events)
    }

    fn read_type(&self, _: &str, _: Option<u64>) -> anyhow::Result<u64> {
        anyhow::bail!("redb's rows have no query by type")
    }

    fn follow(&self, _: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
        anyhow::bail!("redb has no subscriptions")
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}
