//! The index against a naive model of it.

#![expect(
    clippy::cast_possible_truncation,
    reason = "positions of tests are small"
)]

use std::{collections::BTreeMap, sync::Arc};

use leftfold_model::{Category, EventType, Position, Query, QueryItem, Scope, StreamName, Tag};
use proptest::prelude::*;

use super::{writer::TailPostings, *};
use crate::{
    cache::FileCache,
    disk::{FileKind, FileName, real::RealDisk},
    record::LogId,
};

const LOG: LogId = LogId([9; 16]);

fn files(disk: &RealDisk) -> Arc<FileCache> {
    let disk = RealDisk::at(disk.directory()).unwrap();
    Arc::new(FileCache::over(Arc::new(disk), 64 * 1024))
}

/// One event as the index sees it.
#[derive(Clone, Debug)]
struct Indexed {
    stream: StreamName,
    event_type: EventType,
    tags: Vec<Tag>,
}

fn event() -> impl Strategy<Value = Indexed> {
    let tags = prop::collection::btree_set(0_u8..5, 0..4);
    (0_u8..6, 0_u8..3, tags).prop_map(|(stream, kind, tags)| Indexed {
        stream: StreamName::new(format!("c{}-{stream}", stream % 2)).unwrap(),
        event_type: EventType::new(format!("T{kind}")).unwrap(),
        tags: tags
            .into_iter()
            .map(|tag| Tag::new(format!("t{tag}")).unwrap())
            .collect(),
    })
}

fn add(tail: &MemIndex, seen: &mut BTreeMap<StreamName, u64>, position: u64, event: &Indexed) {
    let position = Position::new(position);
    let events = seen.entry(event.stream.clone()).or_default();
    tail.add(Term::stream(&event.stream).as_bytes(), position, *events);
    *events += 1;
    tail.add(
        Term::category(event.stream.category_str()).as_bytes(),
        position,
        0,
    );
    tail.add(Term::event_type(&event.event_type).as_bytes(), position, 0);
    for tag in &event.tags {
        tail.add(Term::tag(tag).as_bytes(), position, 0);
    }
}

/// Indexes `events` with a new source after each of `truncations` events; the last source stays a tail.
fn sources(disk: &RealDisk, events: &[Indexed], cut: usize, merge_first: usize) -> IndexSnapshot {
    let mut seen = BTreeMap::new();
    let mut index_files: Vec<Arc<IndexFile>> = Vec::new();
    let mut tail = MemIndex::new(Position::FIRST);
    for (index, event) in events.iter().enumerate() {
        let position = index as u64 + 1;
        add(&tail, &mut seen, position, event);
        if (index + 1) % cut == 0 {
            let range = (tail.first(), Position::new(position));
            write_index_file(
                &files(disk),
                LOG,
                range,
                &mut TailPostings::of(&tail.shards()),
                &|| true,
            )
            .unwrap();
            index_files.push(Arc::new(IndexFile::open(&files(disk), LOG, range).unwrap()));
            tail = MemIndex::new(Position::new(position + 1));
        }
    }
    let run = merge_first.min(index_files.len());
    if run > 1 {
        merge(&files(disk), LOG, &index_files[..run], &|| true).unwrap();
        let range = (index_files[0].first(), index_files[run - 1].last());
        let merged = Arc::new(IndexFile::open(&files(disk), LOG, range).unwrap());
        index_files.splice(..run, [merged]);
    }
    IndexSnapshot {
        index_files: index_files.into(),
        tails: [Arc::new(tail)].into(),
    }
}

fn disk() -> (tempfile::TempDir, RealDisk) {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::at(directory.path()).unwrap();
    (directory, disk)
}

fn queries() -> Vec<(Scope, Query)> {
    let t = |n: u8| EventType::new(format!("T{n}")).unwrap();
    let g = |n: u8| Tag::new(format!("t{n}")).unwrap();
    let items = |items: Vec<QueryItem>| Query::items(items).unwrap();
    let stream = Scope::Stream(StreamName::new("c0-2").unwrap());
    let category = Scope::Category(Category::new("c1").unwrap());
    vec![
        (Scope::All, Query::All),
        (stream.clone(), Query::All),
        (category.clone(), Query::All),
        (Scope::All, items(vec![QueryItem::types([t(0)]).unwrap()])),
        (
            Scope::All,
            items(vec![QueryItem::tags([g(0), g(1)]).unwrap()]),
        ),
        (
            Scope::All,
            items(vec![QueryItem::new([t(0), t(1)], [g(2)]).unwrap()]),
        ),
        (
            category,
            items(vec![
                QueryItem::types([t(2)]).unwrap(),
                QueryItem::tags([g(3)]).unwrap(),
            ]),
        ),
        (stream, items(vec![QueryItem::tags([g(4)]).unwrap()])),
        (
            Scope::Stream(StreamName::new("absent").unwrap()),
            Query::All,
        ),
    ]
}

fn matches(event: &Indexed, scope: &Scope, query: &Query) -> bool {
    let in_scope = match scope {
        Scope::Stream(stream) => event.stream == *stream,
        Scope::Category(category) => event.stream.category() == *category,
        _ => true,
    };
    in_scope && query.matches(&event.event_type, &event.tags)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_query_finds_what_a_naive_scan_finds_in_both_directions(
        events in prop::collection::vec(event(), 1..600), cut in 7_usize..300, merged in 0_usize..5,
        through in 0_u64..600, starts in prop::collection::vec(0_u64..610, 4),
    ) {
        let (_keep, disk) = disk();
        let sources = sources(&disk, &events, cut, merged);
        // Index files hold durable events only, so a reader's bound lies in the tail.
        let indexed_through = sources.index_files.last().map_or(0, |index_file| index_file.last().get());
        let through = through.max(indexed_through).min(events.len() as u64);
        for (scope, query) in queries() {
            let expected: Vec<u64> = (1..=through)
                .filter(|&p| matches(&events[p as usize - 1], &scope, &query)).collect();
            let mut set = sources.select(&scope, &query, Position::new(through));
            let mut found = Vec::new();
            let mut from = Position::START;
            while let Some(position) = set.at_or_after(from).unwrap() {
                found.push(position.get());
                from = position.next();
            }
            prop_assert_eq!(&found, &expected);
            let mut backwards = Vec::new();
            let mut from = Position::MAX;
            while let Some(position) = set.at_or_before(from).unwrap() {
                backwards.push(position.get());
                from = position.previous();
            }
            backwards.reverse();
            prop_assert_eq!(&backwards, &expected);
            for &start in &starts {
                let first = expected.iter().find(|&&p| p >= start).copied().map(Position::new);
                prop_assert_eq!(set.at_or_after(Position::new(start)).unwrap(), first);
                let last = expected.iter().rfind(|&&p| p <= start).copied().map(Position::new);
                prop_assert_eq!(set.at_or_before(Position::new(start)).unwrap(), last);
            }
        }
    }

    #[test]
    fn revisions_lead_to_positions_and_streams_are_listed_in_order(
        events in prop::collection::vec(event(), 1..600), cut in 7_usize..300, merged in 0_usize..5,
    ) {
        let (_keep, disk) = disk();
        let sources = sources(&disk, &events, cut, merged);
        let through = Position::new(events.len() as u64);
        let mut streams: BTreeMap<StreamName, Vec<u64>> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            streams.entry(event.stream.clone()).or_default().push(index as u64 + 1);
        }
        let mut listing = Listing::of(&sources, "", None, through).unwrap();
        for (name, positions) in &streams {
            let term = Term::stream(name);
            prop_assert_eq!(sources.stream_events(&term, through).unwrap(), positions.len() as u64);
            for (revision, &position) in positions.iter().enumerate() {
                let found = sources.position_of(&term, revision as u64, through).unwrap();
                prop_assert_eq!(found, Some(Position::new(position)));
            }
            prop_assert_eq!(sources.position_of(&term, positions.len() as u64, through).unwrap(), None);
            let listed = listing.next().unwrap().unwrap();
            prop_assert_eq!(listed.name, name.as_str().as_bytes());
            prop_assert_eq!(listed.events, positions.len() as u64);
            prop_assert_eq!(listed.last.get(), *positions.last().unwrap());
        }
        prop_assert!(listing.next().unwrap().is_none());
        let mut some = Listing::of(&sources, "c1-", Some("c1-1"), through).unwrap();
        let wanted = streams.keys().filter(|name| name.as_str() > "c1-1" && name.as_str().starts_with("c1-"));
        for name in wanted {
            prop_assert_eq!(some.next().unwrap().unwrap().name, name.as_str().as_bytes());
        }
        prop_assert!(some.next().unwrap().is_none());
    }
}

#[test]
fn long_lists_are_found_by_ordinal_and_by_position() {
    let (_keep, disk) = disk();
    let tail = MemIndex::new(Position::FIRST);
    let term = Term::stream(&StreamName::new("long").unwrap());
    let count = 128 * 256 * 2 + 77;
    for n in 0..count {
        tail.add(term.as_bytes(), Position::new(n * 3 + 1), 5);
    }
    let range = (Position::FIRST, Position::new(count * 3));
    write_index_file(
        &files(&disk),
        LOG,
        range,
        &mut TailPostings::of(&tail.shards()),
        &|| true,
    )
    .unwrap();
    let index_file = Arc::new(IndexFile::open(&files(&disk), LOG, range).unwrap());
    let sources = IndexSnapshot {
        index_files: [Arc::clone(&index_file)].into(),
        tails: [].into(),
    };
    for ordinal in [0, 1, 127, 128, 32_767, 32_768, 65_535, 65_536, count - 1] {
        let found = sources.position_of(&term, ordinal + 5, range.1).unwrap();
        assert_eq!(
            found,
            Some(Position::new(ordinal * 3 + 1)),
            "ordinal {ordinal}"
        );
    }
    let mut set = sources.select(
        &Scope::Stream(StreamName::new("long").unwrap()),
        &Query::All,
        range.1,
    );
    for wanted in [0, 2, 128 * 3, 128 * 3 + 2, count * 3 - 2, count * 3] {
        let expected = (0..count)
            .map(|n| n * 3 + 1)
            .find(|&p| p >= wanted)
            .map(Position::new);
        assert_eq!(
            set.at_or_after(Position::new(wanted)).unwrap(),
            expected,
            "at {wanted}"
        );
    }
}

/// Reads everything a file can answer; used to see whether damage is noticed.
fn everything(
    disk: &RealDisk,
    range: (Position, Position),
) -> Result<Vec<(Term, Vec<u64>)>, crate::StorageError> {
    let index_file = Arc::new(IndexFile::open(&files(disk), LOG, range)?);
    index_file.check_filter()?;
    let mut all = Vec::new();
    let mut scan = Scan::from(Arc::clone(&index_file), &[]);
    while let Some((term, entry)) = scan.next()? {
        let mut positions = Vec::new();
        while let Some(chunk) = index_file.chunk_at(&entry, positions.len() as u64)? {
            positions.extend(chunk.positions);
        }
        assert!(index_file.entry(term.as_bytes())?.is_some());
        all.push((term, positions));
    }
    Ok(all)
}

#[test]
fn any_flipped_bit_and_any_cut_of_an_index_file_is_noticed() {
    let (keep, disk) = disk();
    let tail = MemIndex::new(Position::FIRST);
    for n in 0..300_u64 {
        tail.add(
            Term::stream(&StreamName::new(format!("s-{}", n % 7)).unwrap()).as_bytes(),
            Position::new(n + 1),
            0,
        );
    }
    let range = (Position::FIRST, Position::new(300));
    let name = write_index_file(
        &files(&disk),
        LOG,
        range,
        &mut TailPostings::of(&tail.shards()),
        &|| true,
    )
    .unwrap()
    .unwrap();
    assert_eq!(
        name,
        FileName::of(FileKind::Index {
            first: range.0,
            last: range.1
        })
    );
    let path = keep.path().join(name.to_string());
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(everything(&disk, range).unwrap().len(), 7);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &damaged).unwrap();
        assert!(
            everything(&disk, range).is_err_and(|e| e.is_corruption()),
            "bit {bit} flipped unnoticed"
        );
    }
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(
            everything(&disk, range).is_err(),
            "cut to {length} bytes unnoticed"
        );
    }
}
