//! A real disk that refuses, counts or panics where a test says so.

use std::{
    io,
    ops::Range,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use leftfold_log::disk::{Disk, DiskFile, DiskLock, FileKind, FileName, LockError, real::RealDisk};

/// What a test does to an operation on a file; `Some` refuses it.
type Refusal = Box<dyn FnMut(&'static str, &FileName) -> Option<io::Error> + Send>;

#[derive(Default)]
struct Shared {
    refusal: Mutex<Option<Refusal>>,
    read_bytes: AtomicU64,
    open_files: AtomicUsize,
    open_files_max: Mutex<Option<usize>>,
    unreadable: Mutex<Option<Range<u64>>>,
    gate: Mutex<Option<Arc<Gate>>>,
}

/// Blocks readers of index files until it is opened.
#[derive(Default)]
pub(crate) struct Gate {
    /// How many wait, and whether it is open.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        while !state.1 {
            state = self.changed.wait(state).unwrap();
        }
    }

    #[track_caller]
    pub(crate) fn wait_for_a_reader(&self, limit: Duration) {
        let state = self.state.lock().unwrap();
        let waits = self
            .changed
            .wait_timeout_while(state, limit, |state| state.0 == 0);
        assert!(!waits.unwrap().1.timed_out(), "no index file is read");
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    fn allow(&self, operation: &'static str, name: &FileName) -> io::Result<()> {
        let mut refusal = self.refusal.lock().unwrap_or_else(|e| e.into_inner());
        match refusal.as_mut().and_then(|refuse| refuse(operation, name)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn take_descriptor(&self) -> io::Result<()> {
        let max = *self.open_files_max.lock().unwrap();
        if max.is_some_and(|max| self.open_files.load(Ordering::SeqCst) >= max) {
            return Err(too_many_files());
        }
        self.open_files.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// What the system says when a process has no descriptor left.
pub(crate) fn too_many_files() -> io::Error {
    io::Error::from_raw_os_error(24)
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct FaultyDisk {
    disk: Arc<RealDisk>,
    shared: Arc<Shared>,
}

impl FaultyDisk {
    pub(crate) fn at(directory: &tempfile::TempDir) -> Self {
        Self {
            disk: Arc::new(RealDisk::at(directory.path()).unwrap()),
            shared: Arc::default(),
        }
    }

    /// Asks `refusal` before each operation: `create`, `open`, `read`, `write`, `shorten`, `sync`.
    pub(crate) fn refuse(
        &self,
        refusal: impl FnMut(&'static str, &FileName) -> Option<io::Error> + Send + 'static,
    ) {
        *self
            .shared
            .refusal
            .lock()
            .unwrap_or_else(|e| e.into_inner()) = Some(Box::new(refusal));
    }

    pub(crate) fn refuse_nothing(&self) {
        *self
            .shared
            .refusal
            .lock()
            .unwrap_or_else(|e| e.into_inner()) = None;
    }

    /// Holds up reads of index files until the gate is opened.
    pub(crate) fn hold_index_reads(&self) -> Arc<Gate> {
        let gate = Arc::<Gate>::default();
        *self.shared.gate.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    /// Fails reads of these bytes of every segment, as a disk with a damaged sector does.
    pub(crate) fn fail_reads_of(&self, bytes: Range<u64>) {
        *self.shared.unreadable.lock().unwrap() = Some(bytes);
    }

    /// Bytes that were read so far.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.shared.read_bytes.load(Ordering::SeqCst)
    }

    /// Refuses to open more files than this at once.
    pub(crate) fn limit_open_files(&self, files: usize) {
        *self.shared.open_files_max.lock().unwrap() = Some(files);
    }

    /// Refuses to open any file more than are open now.
    pub(crate) fn limit_open_files_to_those_open(&self) {
        self.limit_open_files(self.shared.open_files.load(Ordering::SeqCst));
    }

    fn file(&self, name: &FileName, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile {
            file,
            name: *name,
            shared: Arc::clone(&self.shared),
        })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        self.shared.allow("create", name)?;
        self.shared.take_descriptor()?;
        let file = self.disk.create(name).inspect_err(|_| {
            self.shared.open_files.fetch_sub(1, Ordering::SeqCst);
        })?;
        Ok(self.file(name, file))
    }
    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        self.shared.allow("open", name)?;
        self.shared.take_descriptor()?;
        let file = self.disk.open(name).inspect_err(|_| {
            self.shared.open_files.fetch_sub(1, Ordering::SeqCst);
        })?;
        Ok(self.file(name, file))
    }
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn list(&self) -> io::Result<Vec<Result<FileName, String>>> {
        self.disk.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn lock(&self) -> Result<DiskLock, LockError> {
        self.disk.lock()
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    name: FileName,
    shared: Arc<Shared>,
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        self.shared.open_files.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FaultyFile {
    fn is_held(&self) -> bool {
        let is_index = matches!(self.name.kind(), FileKind::Index { .. });
        is_index && self.shared.gate.lock().unwrap().is_some()
    }
}

impl DiskFile for FaultyFile {
    fn read_if_cached(&self, buf: &mut [u8], at: u64) -> io::Result<bool> {
        // A closed gate is a disk that takes its time.
        if self.is_held() {
            return Ok(false);
        }
        self.read_exact_at(buf, at).map(|()| true)
    }
    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        if self.is_held() {
            let gate = self.shared.gate.lock().unwrap().clone();
            gate.inspect(|gate| gate.pass());
        }
        self.shared.allow("read", &self.name)?;
        let unreadable = self.shared.unreadable.lock().unwrap().clone();
        let is_segment = matches!(self.name.kind(), FileKind::Segment { .. });
        if let Some(bytes) = unreadable.filter(|_| is_segment)
            && at < bytes.end
            && at + buf.len() as u64 > bytes.start
        {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.shared
            .read_bytes
            .fetch_add(buf.len() as u64, Ordering::SeqCst);
        self.file.read_exact_at(buf, at)
    }
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.shared.allow("write", &self.name)?;
        self.file.write_all_at(buf, at)
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shared.allow("shorten", &self.name)?;
        self.file.set_len(len)
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.file.reserve(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.shared.allow("sync", &self.name)?;
        self.file.sync_data()
    }
}
