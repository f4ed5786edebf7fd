//! Reads that may not wait, on a disk of which the test says what is in memory.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use leftfold_log::{
    Log, LogOptions, SystemClock,
    disk::{Disk, DiskFile, DiskLock, FileName, LockError, real::RealDisk},
};
use leftfold_model::{
    Append, EventType, ExpectedRevision, NewEvent, Position, Query, QueryItem, Read, RecordedEvent,
    Revision, Scope, Tag,
};
use tempfile::TempDir;

use crate::story::{append, directory, event, read, stream, tiny};

/// What the test decides about all files, and learns of them.
#[derive(Debug, Default)]
struct Memory {
    /// One of so many questions is answered with "not in memory"; 0: none.
    misses: AtomicU64,
    asked: AtomicU64,
    /// Whether a plain read, which may wait, is a mistake now.
    forbids_waiting: AtomicBool,
    waited: AtomicU64,
    announced: AtomicU64,
}

#[derive(Debug)]
struct TestDisk(RealDisk, Arc<Memory>);

#[derive(Debug)]
struct TestFile(Arc<dyn DiskFile>, Arc<Memory>);

impl TestDisk {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TestFile(file, Arc::clone(&self.1)))
    }
}

impl Disk for TestDisk {
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.0.create(name)?))
    }
    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.0.open(name)?))
    }
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> io::Result<Vec<Result<FileName, String>>> {
        self.0.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn lock(&self) -> Result<DiskLock, LockError> {
        self.0.lock()
    }
}

impl DiskFile for TestFile {
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        if self.1.forbids_waiting.load(Relaxed) {
            self.1.waited.fetch_add(1, Relaxed);
        }
        self.0.read_exact_at(buf, at)
    }
    fn read_if_cached(&self, buf: &mut [u8], at: u64) -> io::Result<bool> {
        let asked = self.1.asked.fetch_add(1, Relaxed);
        match self.1.misses.load(Relaxed) {
            misses if misses > 0 && asked % misses == misses - 1 => Ok(false),
            _ => self.0.read_exact_at(buf, at).map(|()| true),
        }
    }
    fn will_read(&self, _: u64, _: u64) {
        self.1.announced.fetch_add(1, Relaxed);
    }
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(buf, at)
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.0.reserve(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

struct Fixture {
    log: Log,
    memory: Arc<Memory>,
    directory: TempDir,
}

impl Fixture {
    fn with(options: LogOptions) -> Self {
        Self::over(directory(), options)
    }

    fn over(directory: TempDir, options: LogOptions) -> Self {
        let memory = Arc::new(Memory::default());
        let disk = TestDisk(RealDisk::at(directory.path()).unwrap(), Arc::clone(&memory));
        let log = Log::open_on(Arc::new(disk), options, Arc::new(SystemClock)).unwrap();
        Self {
            log,
            memory,
            directory,
        }
    }

    /// Opens the log again, with nothing in memory but its newest segment.
    fn opened_again(self) -> Self {
        let Self { log, directory, .. } = self;
        log.close().unwrap();
        drop(log);
        Self::over(directory, tiny())
    }

    /// 600 events of three streams in a dozen sealed segments and the newest.
    fn of_many_files() -> Self {
        let fixture = Self::with(tiny());
        for n in 0..200 {
            let name = format!("s-{}", n % 3);
            let numbers = (0..3).map(|i| n * 3 + i);
            let written = fixture
                .log
                .append(append(&name, ExpectedRevision::Any, numbers));
            written.unwrap();
        }
        fixture
    }

    /// Reads without waiting, and the rest as others do. `None` if it would have to wait.
    fn read_now(&self, of: &Read) -> Option<Vec<RecordedEvent>> {
        self.memory.forbids_waiting.store(true, Relaxed);
        let first = self.log.read_nowait(of);
        self.memory.forbids_waiting.store(false, Relaxed);
        assert_eq!(self.memory.waited.load(Relaxed), 0, "a file was waited for");
        let (mut cursor, first) = first?.unwrap();
        let mut events = first.unwrap_or_default();
        while let Some(batch) = cursor.next_batch().unwrap() {
            events.extend(batch);
        }
        Some(events)
    }

    fn misses(&self, one_of: u64) {
        self.memory.misses.store(one_of, Relaxed);
    }
}

fn query(item: QueryItem) -> Query {
    Query::items([item]).unwrap()
}

fn reads() -> Vec<Read> {
    let tag = Tag::new("n:3").unwrap();
    let of_type = EventType::new("T1").unwrap();
    let items = [
        QueryItem::tags([tag.clone()]),
        QueryItem::new([of_type.clone()], [tag]),
        QueryItem::types([of_type]),
        QueryItem::tags([Tag::new("n:none").unwrap()]),
    ];
    let queries = items.map(|item| query(item.unwrap()));
    let mut reads = vec![
        Read::all(),
        Read::all().from_position(Position::new(317)),
        Read::stream(stream("s-1")),
        Read::stream(stream("s-2")).from_revision(Revision::new(77)),
        Read::stream(stream("nobody")),
    ];
    reads.extend(queries.map(Read::query));
    let backwards: Vec<_> = reads.iter().map(|read| read.clone().backwards()).collect();
    reads.extend(backwards);
    let short: Vec<_> = reads.iter().map(|read| read.clone().limit(7)).collect();
    reads.extend(short);
    reads
}

#[test]
fn a_read_that_may_not_wait_finds_what_any_other_finds() {
    let fixture = Fixture::of_many_files();
    // No more files come and go.
    fixture.log.close().unwrap();
    for of in reads() {
        let expected = read(&fixture.log, &of);
        let found = fixture.read_now(&of);
        assert!(found.is_some(), "given up: {of:?}");
        assert!(found == Some(expected), "{of:?}");
    }
}

#[test]
fn a_read_that_would_have_to_wait_is_given_up_and_finds_nothing_wrong() {
    let fixture = Fixture::of_many_files();
    // The threads that seal and merge may wait; the test would mistake them for the reader.
    fixture.log.close().unwrap();
    let (mut done, mut given_up) = (0, 0);
    for one_of in 1..40 {
        fixture.misses(one_of);
        for of in reads() {
            let expected = read(&fixture.log, &of);
            match fixture.read_now(&of) {
                Some(found) => {
                    assert_eq!(found, expected, "{of:?}, one miss of {one_of}");
                    done += 1;
                }
                None => given_up += 1,
            }
        }
    }
    assert!(
        done > 100 && given_up > 100,
        "{done} done, {given_up} given up"
    );
}

#[test]
fn what_a_given_up_read_wants_next_is_announced_to_the_system() {
    let fixture = Fixture::of_many_files();
    fixture.log.close().unwrap();
    let tagged = Read::query(query(QueryItem::tags([Tag::new("n:3").unwrap()]).unwrap()));
    // Now its files are open and its blocks of the index in memory.
    read(&fixture.log, &tagged);
    assert!(fixture.read_now(&tagged).is_some());
    fixture.misses(1);
    let before = fixture.memory.announced.load(Relaxed);
    assert_eq!(fixture.read_now(&tagged), None);
    let announced = fixture.memory.announced.load(Relaxed) - before;
    assert!(announced > 5, "{announced} reads announced");
}

#[test]
fn a_revision_that_would_have_to_be_waited_for_is_not_told() {
    let fixture = Fixture::of_many_files();
    let old = stream("old");
    fixture
        .log
        .append(append("old", ExpectedRevision::Any, [1_000]))
        .unwrap();
    for n in 0..100 {
        let more = append("s-0", ExpectedRevision::Any, [2_000 + n]);
        fixture.log.append(more).unwrap();
    }
    let fixture = fixture.opened_again();
    fixture.misses(1);
    assert!(fixture.log.revision_nowait(&old).is_none());
    let known = fixture.log.revision(&old).unwrap();
    let revision = fixture.log.revision_nowait(&old).unwrap();
    assert_eq!(revision.unwrap(), known);
}

#[test]
fn a_long_read_begins_in_place_and_goes_on_elsewhere() {
    let fixture = Fixture::with(LogOptions::default());
    let numbers = 0..1_000;
    fixture
        .log
        .append(append("long", ExpectedRevision::Any, numbers))
        .unwrap();
    let all = Read::stream(stream("long"));
    let (_, first) = fixture.log.read_nowait(&all).unwrap().unwrap();
    assert_eq!(first.unwrap().len(), 64);
    assert_eq!(fixture.read_now(&all).unwrap(), read(&fixture.log, &all));
}

#[test]
fn a_read_that_takes_long_is_given_up_although_all_is_in_memory() {
    let fixture = Fixture::with(LogOptions::default());
    let large = NewEvent::json(EventType::new("Large").unwrap(), vec![7; 2 * 1024 * 1024]);
    let written = Append::to(stream("large"), ExpectedRevision::Any, vec![large]).unwrap();
    fixture.log.append(written).unwrap();
    assert_eq!(fixture.read_now(&Read::stream(stream("large"))), None);

    fixture
        .log
        .append(append("small", ExpectedRevision::Any, [30_000]))
        .unwrap();
    let small = Read::stream(stream("small"));
    assert_eq!(fixture.read_now(&small), Some(read(&fixture.log, &small)));
    let item = |n| QueryItem::tags((0..64).map(|i| Tag::new(format!("t:{n}:{i}")).unwrap()));
    let items = (0..256).map(|n| item(n).unwrap());
    let wide = Read::query(Query::items(items).unwrap());
    assert_eq!(fixture.read_now(&wide), None);

    // Two long lists that never meet.
    let events = (0..20_000).map(|n| {
        let event = event(n).with_tags([Tag::new(format!("half:{}", n % 2)).unwrap()]);
        event.unwrap()
    });
    let mut events: Vec<_> = events.collect();
    while !events.is_empty() {
        let some = events.split_off(events.len().saturating_sub(500));
        let written = Append::to(stream("halves"), ExpectedRevision::Any, some).unwrap();
        fixture.log.append(written).unwrap();
    }
    let both = [0, 1].map(|n| Tag::new(format!("half:{n}")).unwrap());
    let never = Read::query(query(QueryItem::tags(both).unwrap()));
    assert_eq!(fixture.read_now(&never), None);
    assert_eq!(read(&fixture.log, &never), []);
}

#[test]
fn a_follower_that_may_not_wait_stays_where_it_is_and_misses_nothing() {
    let fixture = Fixture::of_many_files();
    let head = fixture.log.head();
    let mut follower = fixture.log.follow(Scope::All, Query::All, head);
    let (mut delivered, mut given_up) = (Vec::new(), 0);
    for n in 0..300 {
        let misses = n % 4;
        fixture.misses(misses);
        let more = append("s-0", ExpectedRevision::Any, [5_000 + n * 2, 5_001 + n * 2]);
        fixture.log.append(more).unwrap();
        let through = follower.through();
        let next = match follower.try_next_nowait() {
            Some(next) => next,
            None => {
                assert_eq!(follower.through(), through);
                given_up += 1;
                follower.try_next()
            }
        };
        delivered.extend(next.unwrap().unwrap().events);
    }
    assert!(given_up > 50, "{given_up} given up");
    let expected = read(&fixture.log, &Read::all().from_position(head.next()));
    assert_eq!(delivered, expected);
}

#[test]
fn a_follower_that_catches_up_misses_nothing_whoever_reads_for_it() {
    let fixture = Fixture::of_many_files();
    fixture.log.close().unwrap();
    let all = read(&fixture.log, &Read::all());
    let (mut asked, mut in_place, mut most_in_a_row) = (0, 0, 0);
    for behind in (0..=600).step_by(40) {
        let after = fixture.log.head().get() - behind;
        let mut follower = fixture
            .log
            .follow(Scope::All, Query::All, Position::new(after));
        let (mut delivered, mut in_a_row) = (Vec::new(), 0);
        while !follower.is_current() {
            // Now and then one file or block is not in memory.
            fixture.misses([0, 0, 0, 0, 0, 7][asked % 6]);
            asked += 1;
            let next = match follower.try_next_nowait() {
                Some(next) => {
                    in_place += 1;
                    in_a_row += 1;
                    next
                }
                None => {
                    in_a_row = 0;
                    follower.try_next()
                }
            };
            most_in_a_row = most_in_a_row.max(in_a_row);
            delivered.extend(next.unwrap().unwrap().events);
        }
        let expected = all.iter().filter(|event| event.position.get() > after);
        assert!(delivered.iter().eq(expected), "{behind} events behind");
    }
    assert!((1..asked).contains(&in_place), "{in_place} of {asked}");
    // Four to come near the head, one before, which had yet to find out how far it is.
    assert!((2..=5).contains(&most_in_a_row), "{most_in_a_row} in a row");
}
