//! Leftfold's engine, embedded, through its blocking interface.
//!
//! **Owns:** the translation of the load into appends and reads. **Does not know:** anything private of the engine.
//! **Invariants:** default options.

use std::path::Path;

use leftfold_log::{Log, LogOptions};
use leftfold_model::{
    Append, AppendCondition, EventType, ExpectedRevision, NewEvent, Position, Query, QueryItem,
    Read, Revision, Scope, StreamName, StreamWrite, Tag,
};

use super::{
    COMMON_TYPE, Condition, Engine, Loaded, MANY_STREAMS, OLD_TYPE, Shape, Writer, payload,
};

pub(crate) struct Leftfold {
    log: Log,
    common: EventType,
}

impl Leftfold {
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let log = Log::open(directory, LogOptions::default())?;
        Ok(Self {
            log,
            common: EventType::new(COMMON_TYPE)?,
        })
    }

    fn count(&self, read: &Read) -> anyhow::Result<u64> {
        let mut cursor = self.log.read(read)?;
        let mut events = 0;
        while let Some(batch) = cursor.next_refs()? {
            for event in batch.iter() {
                event?;
                events += 1;
            }
        }
        Ok(events)
    }
}

fn tag(account: u64) -> anyhow::Result<Tag> {
    Ok(Tag::new(format!("account:{account}"))?)
}

fn stream(account: u64) -> anyhow::Result<StreamName> {
    Ok(StreamName::new(format!("account-{account}"))?)
}

fn query(item: QueryItem) -> anyhow::Result<Query> {
    Ok(Query::items([item])?)
}

fn conditional(append: Append, item: QueryItem, after: Position) -> anyhow::Result<Append> {
    Ok(append.with_condition(AppendCondition::new(query(item)?, after))?)
}

impl Engine for Leftfold {
    fn append(&self, shape: &Shape, writer: &mut Writer) -> anyhow::Result<()> {
        let own = tag(writer.number)?;
        let mut tags = Vec::with_capacity(1 + shape.fresh_tags);
        let mut fresh = None;
        if shape.condition == Condition::FreshTag {
            let unique = Tag::new(format!("name:{}-{}", writer.number, writer.appends))?;
            fresh = Some(unique.clone());
            tags.push(unique);
        } else if shape.fresh_tags == 0 {
            tags.push(own.clone());
        }
        let events = (0..shape.batch).map(|nth| {
            let mut tags = tags.clone();
            for n in 0..shape.fresh_tags {
                tags.push(Tag::new(format!(
                    "t{n}:{}-{}-{nth}",
                    writer.number, writer.appends
                ))?);
            }
            let event = NewEvent::json(self.common.clone(), payload(shape.payload, writer.appends));
            Ok(event.with_tags(tags)?)
        });
        let events = events.collect::<anyhow::Result<Vec<_>>>()?;
        let name = if shape.many_streams {
            stream(writer.chance() % MANY_STREAMS)?
        } else {
            stream(writer.number)?
        };
        let expected = match (shape.condition, writer.appends) {
            (Condition::Revision, 0) => ExpectedRevision::NoStream,
            (Condition::Revision, n) => {
                ExpectedRevision::Exact(Revision::new(n * shape.batch as u64 - 1))
            }
            _ => ExpectedRevision::Any,
        };
        let append = Append::to(name, expected, events)?;
        let after = Position::new(writer.last);
        let append = match shape.condition {
            Condition::None | Condition::Revision => append,
            Condition::OwnTag => conditional(append, QueryItem::tags([own])?, after)?,
            Condition::FreshTag => conditional(append, QueryItem::tags(fresh)?, Position::START)?,
            Condition::OldType => conditional(
                append,
                QueryItem::types([EventType::new(OLD_TYPE)?])?,
                after,
            )?,
        };
        writer.last = self.log.append(append)?.last.get();
        writer.appends += 1;
        Ok(())
    }

    fn load(&self, events: &[Loaded], bytes: usize) -> anyhow::Result<()> {
        let writes = events.iter().map(|event| {
            let new = NewEvent::json(EventType::new(event.event_type)?, payload(bytes, 0));
            Ok(StreamWrite {
                stream: stream(event.account)?,
                expected: ExpectedRevision::Any,
                events: vec![new.with_tags([tag(event.account)?])?],
            })
        });
        let writes = writes.collect::<anyhow::Result<Vec<_>>>()?;
        self.log.append(Append::new(writes, Vec::new())?)?;
        Ok(())
    }

    fn scan(&self) -> anyhow::Result<(u64, u64)> {
        let mut cursor = self.log.read(&Read::all())?;
        let (mut events, mut bytes) = (0, 0);
        while let Some(batch) = cursor.next_refs()? {
            for event in batch.iter() {
                events += 1;
                bytes += event?.data.len() as u64;
            }
        }
        Ok((events, bytes))
    }

    fn read_tag(&self, account: u64) -> anyhow::Result<u64> {
        self.count(&Read::query(query(QueryItem::tags([tag(account)?])?)?))
    }

    fn read_stream(&self, account: u64) -> anyhow::Result<u64> {
        self.count(&Read::stream(stream(account)?))
    }

    fn read_type(&self, event_type: &str, account: Option<u64>) -> anyhow::Result<u64> {
        let mut item = QueryItem::types([EventType::new(event_type)?])?;
        if let Some(account) = account {
            item = item.and_tags([tag(account)?])?;
        }
        self.count(&Read::query(query(item)?))
    }

    fn follow(&self, seen: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
        let mut follower = self.log.follow(Scope::All, Query::All, self.log.head());
        while let Some(delivered) = follower.wait_next()? {
            for event in delivered.events {
                if !seen(&event.data) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.log.close()?)
    }
}
