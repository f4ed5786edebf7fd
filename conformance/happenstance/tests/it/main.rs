//! Happenstance's conformance suite over Leftfold's stores.

mod adapter;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use adapter::{Adapted, METADATA_MAX, open_engine};
use happenstance::StoreId;
use happenstance_testkit::{Capability, Fixture};
use leftfold_model::limits;
use leftfold_store::{EventStore, MemoryStore};

fn fresh_id() -> StoreId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    StoreId::from_bytes(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_le_bytes())
}

const NO_FAULT: Capability = Capability::declined(
    "faults are injected below the store, by a simulated disk, in the own tests of the project",
);
const NO_FRONTIER: Capability =
    Capability::declined("an event is visible to every read from the moment its append returns");

/// The store in memory.
struct Memory(Adapted);

impl Memory {
    fn new() -> Self {
        Self(Adapted {
            store: Arc::new(MemoryStore::new()),
            id: fresh_id(),
        })
    }
}

impl Fixture for Memory {
    type Store = Adapted;
    const SECOND_HANDLE: Capability = Capability::SUPPORTED;
    const REOPEN: Capability = Capability::declined("what it holds is gone with it");
    const MID_BATCH_FAULT: Capability = NO_FAULT;
    const READ_FAULT: Capability = NO_FAULT;
    const HELD_ABOVE_FRONTIER: Capability = NO_FRONTIER;
    const MAX_EVENT_DATA_LEN: Option<usize> = Some(limits::DATA_BYTES_MAX);
    const MAX_TAGS_PER_EVENT: Option<usize> = Some(limits::TAGS_PER_EVENT_MAX);
    const MAX_EVENTS_PER_BATCH: Option<usize> = Some(limits::APPEND_EVENTS_MAX);
    const MAX_METADATA_LEN: Option<usize> = Some(METADATA_MAX);

    async fn connect(&self) -> Adapted {
        self.0.clone()
    }
}

/// The embedded store in a directory of its own.
struct Engine {
    directory: tempfile::TempDir,
    id: StoreId,
    open: Mutex<Option<Arc<dyn EventStore>>>,
}

impl Engine {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            id: fresh_id(),
            open: Mutex::new(None),
        }
    }
}

impl Fixture for Engine {
    type Store = Adapted;
    const SECOND_HANDLE: Capability = Capability::SUPPORTED;
    const REOPEN: Capability = Capability::SUPPORTED;
    const MID_BATCH_FAULT: Capability = NO_FAULT;
    const READ_FAULT: Capability = NO_FAULT;
    const HELD_ABOVE_FRONTIER: Capability = NO_FRONTIER;
    const MAX_EVENT_DATA_LEN: Option<usize> = Some(limits::DATA_BYTES_MAX);
    const MAX_TAGS_PER_EVENT: Option<usize> = Some(limits::TAGS_PER_EVENT_MAX);
    const MAX_EVENTS_PER_BATCH: Option<usize> = Some(limits::APPEND_EVENTS_MAX);
    const MAX_METADATA_LEN: Option<usize> = Some(METADATA_MAX);

    async fn connect(&self) -> Adapted {
        let open = self.open.lock().unwrap().clone();
        let store = match open {
            Some(store) => store,
            None => {
                let store = open_engine(self.directory.path()).await;
                self.open.lock().unwrap().get_or_insert(store).clone()
            }
        };
        Adapted { store, id: self.id }
    }

    async fn reopen(&self) {
        let open = self.open.lock().unwrap().take();
        if let Some(store) = open {
            store.close().await.unwrap();
        }
    }
}

happenstance_testkit::event_store_conformance!(
    mod_name = memory,
    emit = happenstance_testkit::emit_tokio,
    fixture = Memory::new()
);
happenstance_testkit::event_store_conformance!(
    mod_name = engine,
    emit = happenstance_testkit::emit_tokio,
    fixture = Engine::new()
);
happenstance_testkit::event_store_concurrency_conformance!(
    mod_name = memory_concurrency,
    emit = happenstance_testkit::emit_concurrency_tokio,
    fixture = Memory::new()
);
happenstance_testkit::event_store_concurrency_conformance!(
    mod_name = engine_concurrency,
    emit = happenstance_testkit::emit_concurrency_tokio,
    fixture = Engine::new()
);
happenstance_testkit::event_store_model_conformance!(
    mod_name = memory_model,
    emit = happenstance_testkit::emit_model_tokio,
    fixture = Memory::new()
);
happenstance_testkit::event_store_model_conformance!(
    mod_name = engine_model,
    emit = happenstance_testkit::emit_model_tokio,
    fixture = Engine::new()
);
