//! Queues in which commands of one process take turns on a stream, or on what decisions rest on.
//!
//! **Owns:** [`StreamQueues`] and the state that one command passes to the next. **Does not know:** what commands do.
//! **Invariants:**
//! - The queue only reduces conflicts: the store alone decides whether an append is allowed.
//! - A command that holds its turn without progress delays others by [`PATIENCE`] at most.
//! - A stream that no command waits for costs no memory.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a command waits while no turn ends. A future that was polled once and left alone may hold a turn for any time;
/// a store that takes longer than this for one append has worse troubles than a conflict.
const PATIENCE: Duration = Duration::from_secs(1);

/// The queues of one store.
#[derive(Default)]
pub(crate) struct StreamQueues {
    queues: Mutex<HashMap<Key, Queue>>,
}

/// What commands of a tenant wait for: a stream by its name, or events that decisions rest on. The tenant's part is empty for a
/// store without one.
type Key = (Arc<str>, Arc<str>);

struct Queue {
    shared: Arc<Shared>,
    /// Number of commands that wait or have their turn.
    commands: usize,
}

struct Shared {
    turn: Arc<Semaphore>,
    /// Number of turns that ended.
    ended: AtomicU64,
    state: Mutex<Option<Box<dyn Any + Send>>>,
}

impl fmt::Debug for StreamQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamQueues")
            .field("streams", &self.lock().len())
            .finish()
    }
}

impl StreamQueues {
    /// Waits for a turn on a stream of a tenant, or on events that decisions rest on.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue.
    pub(crate) async fn turn(self: &Arc<Self>, tenant: &Arc<str>, subject: &str) -> Turn {
        let mut turn = self.enter((Arc::clone(tenant), subject.into()));
        let shared = Arc::clone(&turn.shared);
        if let Ok(permit) = Arc::clone(&shared.turn).try_acquire_owned() {
            turn.permit = Some(permit);
            return turn;
        }
        let mut acquired = Box::pin(Arc::clone(&shared.turn).acquire_owned());
        let mut ended = shared.ended.load(Ordering::Acquire);
        loop {
            if let Ok(permit) = timeout(PATIENCE, &mut acquired).await {
                turn.permit = permit.ok();
                return turn;
            }
            let now = shared.ended.load(Ordering::Acquire);
            if now == ended {
                return turn;
            }
            ended = now;
        }
    }

    fn enter(self: &Arc<Self>, key: Key) -> Turn {
        let mut queues = self.lock();
        let queue = queues.entry(key.clone()).or_insert_with(|| Queue {
            shared: Arc::new(Shared {
                turn: Arc::new(Semaphore::new(1)),
                ended: AtomicU64::new(0),
                state: Mutex::default(),
            }),
            commands: 0,
        });
        queue.commands += 1;
        Turn {
            queues: Arc::clone(self),
            key,
            shared: Arc::clone(&queue.shared),
            permit: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command's turn on a stream, or, after its timeout, its permission to run without one.
pub(crate) struct Turn {
    queues: Arc<StreamQueues>,
    key: Key,
    shared: Arc<Shared>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Takes the state that the previous command left.
    pub(crate) fn take_state<T: 'static>(&self) -> Option<T> {
        self.permit.as_ref()?;
        let state = self.state().take()?;
        state.downcast().ok().map(|state| *state)
    }

    /// Returns whether another command waits for the end of this turn.
    pub(crate) fn is_waited_for(&self) -> bool {
        let waited_for = |queue: &Queue| queue.commands > 1;
        self.permit.is_some() && self.queues.lock().get(&self.key).is_some_and(waited_for)
    }

    /// Leaves a state to the next command.
    pub(crate) fn leave_state<T: Send + 'static>(&self, state: T) {
        if self.permit.is_some() {
            *self.state() = Some(Box::new(state));
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.shared.ended.fetch_add(1, Ordering::Release);
        }
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get_mut(&self.key) {
            queue.commands -= 1;
            if queue.commands == 0 {
                queues.remove(&self.key);
            }
        }
    }
}
