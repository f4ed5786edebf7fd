//! Panics of the engine below a store.
//!
//! **Owns:** a disk that panics. **Does not know:** why an engine might.

use std::{io, sync::Arc};

use futures_util::StreamExt;
use leftfold_log::{
    Log, LogOptions, SystemClock,
    disk::{Disk, DiskFile, DiskLock, FileKind, FileName, LockError, real::RealDisk},
};
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Revision, StreamName};
use leftfold_store::{EmbeddedStore, EventStore, Truncation};

/// A disk that panics where a scavenge creates a segment.
#[derive(Debug)]
struct Panics(RealDisk);

impl Disk for Panics {
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        let is_rewritten =
            matches!(name.kind(), FileKind::Segment { generation, .. } if generation > 0);
        assert!(!is_rewritten, "a panic of the test");
        self.0.create(name)
    }
    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(name)
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

#[tokio::test]
async fn a_scavenge_that_panics_ends_with_an_error_and_not_as_if_it_were_done() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Panics(RealDisk::at(directory.path()).unwrap());
    let options = LogOptions::default().with_segment_events(10);
    let log = Log::open_on(Arc::new(disk), options, Arc::new(SystemClock)).unwrap();
    let store = EmbeddedStore::over(log);
    let stream = StreamName::new("s").unwrap();
    for _ in 0..25 {
        let event = NewEvent::json(EventType::new("T").unwrap(), "{}");
        let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![event]);
        store.append(append.unwrap()).await.unwrap();
    }
    let before = Revision::new(5);
    let erasing = store
        .storage()
        .unwrap()
        .erase(vec![Truncation { stream, before }], None);
    let steps: Vec<_> = erasing.collect().await;
    assert!(matches!(steps.last(), Some(Err(_))), "{steps:?}");
}
