//! `tephra`, embedded: the fastest published engine for events with tags.
//!
//! **Owns:** the translation of the load. **Does not know:** streams; it has none, so a stream is its tag.
//! **Invariants:** segments of 256 MiB and a default writer, as its own documents show.

use std::path::Path;

use tephra::{
    AppendCondition, Event, EventType, Position, Query, QueryItem, SegmentConfig, SegmentSet, Tag,
    Tags, WriteCoordinator, WriteHandle, WriterConfig,
};

use super::{
    COMMON_TYPE, Condition, Engine, Loaded, MANY_STREAMS, OLD_TYPE, Shape, Writer, payload,
};

pub(crate) struct Tephra {
    coordinator: WriteCoordinator,
    handle: WriteHandle,
    common: EventType,
}

impl Tephra {
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let set = SegmentSet::open(directory, SegmentConfig::new(256 * 1024 * 1024))?;
        let (coordinator, handle) = WriteCoordinator::start(set, WriterConfig::default())?;
        Ok(Self {
            coordinator,
            handle,
            common: EventType::new(COMMON_TYPE)?,
        })
    }

    fn count(&self, query: &Query) -> anyhow::Result<u64> {
        let mut reads = self.handle.read(query, Position::ZERO, None);
        let mut events = 0;
        while let Some(event) = reads.next() {
            event?;
            events += 1;
        }
        Ok(events)
    }
}

fn tag(account: u64) -> anyhow::Result<Tag> {
    Ok(Tag::new(format!("account:{account}"))?)
}

impl Engine for Tephra {
    fn append(&self, shape: &Shape, writer: &mut Writer) -> anyhow::Result<()> {
        let own = if shape.many_streams {
            tag(writer.chance() % MANY_STREAMS)?
        } else {
            tag(writer.number)?
        };
        let mut shared = Vec::with_capacity(1 + shape.fresh_tags);
        let mut fresh = None;
        if shape.condition == Condition::FreshTag {
            let unique = Tag::new(format!("name:{}-{}", writer.number, writer.appends))?;
            fresh = Some(unique.clone());
            shared.push(unique);
        } else if shape.fresh_tags == 0 {
            shared.push(own.clone());
        }
        let events = (0..shape.batch).map(|nth| {
            let mut tags = shared.clone();
            for n in 0..shape.fresh_tags {
                tags.push(Tag::new(format!(
                    "t{n}:{}-{}-{nth}",
                    writer.number, writer.appends
                ))?);
            }
            let payload = payload(shape.payload, writer.appends);
            Ok(Event::new(&self.common, &Tags::new(tags)?, &payload)?)
        });
        let events = events.collect::<anyhow::Result<Vec<_>>>()?;
        let after = Position::new(writer.last);
        let tagged = |tag: Option<Tag>| {
            Ok::<_, anyhow::Error>(Query::item(QueryItem::with_tags(Tags::new(tag)?)))
        };
        let condition = match shape.condition {
            Condition::None => None,
            Condition::OwnTag | Condition::Revision => {
                Some(AppendCondition::new(tagged(Some(own))?).after(after))
            }
            Condition::FreshTag => Some(AppendCondition::new(tagged(fresh)?)),
            Condition::OldType => {
                let query = Query::item(QueryItem::of_types(vec![EventType::new(OLD_TYPE)?]));
                Some(AppendCondition::new(query).after(after))
            }
        };
        writer.last = self.handle.append(events, condition)?.last.get();
        writer.appends += 1;
        Ok(())
    }

    fn load(&self, events: &[Loaded], bytes: usize) -> anyhow::Result<()> {
        let events = events.iter().map(|event| {
            let event_type = EventType::new(event.event_type)?;
            let tags = Tags::new([tag(event.account)?])?;
            Ok(Event::new(&event_type, &tags, &payload(bytes, 0))?)
        });
        self.handle
            .append(events.collect::<anyhow::Result<Vec<_>>>()?, None)?;
        Ok(())
    }

    fn scan(&self) -> anyhow::Result<(u64, u64)> {
        let mut reads = self.handle.read(&Query::all(), Position::ZERO, None);
        let (mut events, mut bytes) = (0, 0);
        while let Some(event) = reads.next() {
            events += 1;
            bytes += event?.event.data().len() as u64;
        }
        Ok((events, bytes))
    }

    fn read_tag(&self, account: u64) -> anyhow::Result<u64> {
        self.count(&Query::item(QueryItem::with_tags(Tags::new([tag(
            account,
        )?])?)))
    }

    fn read_type(&self, event_type: &str, account: Option<u64>) -> anyhow::Result<u64> {
        let tags = account.map(tag).transpose()?;
        self.count(&Query::item(QueryItem::new(
            vec![EventType::new(event_type)?],
            Tags::new(tags)?,
        )))
    }

    fn follow(&self, seen: &mut dyn FnMut(&[u8]) -> bool) -> anyhow::Result<()> {
        let mut subscription = self.handle.subscribe(Query::all(), self.handle.head());
        while let Some(batch) = subscription.next_batch() {
            for (_, event) in batch? {
                if !seen(event.data()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        self.coordinator.shutdown();
        Ok(())
    }
}
