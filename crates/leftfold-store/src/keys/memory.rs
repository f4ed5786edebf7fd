//! Keys in memory.
//!
//! **Owns:** [`MemoryKeys`]. **Does not know:** what a key seals.
//! **Invariants:** a key is found by its subject if and only if it is found by its name.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_core::future::BoxFuture;

use super::{KeyError, KeyId, KeyStore, Subject, SubjectKey};

/// Keys in memory: for tests, and beside a store in memory. When it is dropped, everything that its keys sealed is forgotten.
#[derive(Debug, Default)]
pub struct MemoryKeys {
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    by_subject: HashMap<Subject, SubjectKey>,
    subjects: HashMap<KeyId, Subject>,
}

impl MemoryKeys {
    /// Creates an empty store of keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyStore for MemoryKeys {
    fn key<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<SubjectKey, KeyError>> {
        Box::pin(async move {
            let mut keys = self.keys();
            if let Some(key) = keys.by_subject.get(subject) {
                return Ok(key.clone());
            }
            let key = SubjectKey::random()?;
            keys.by_subject.insert(subject.clone(), key.clone());
            keys.subjects.insert(key.id, subject.clone());
            Ok(key)
        })
    }

    fn existing<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<SubjectKey>, KeyError>> {
        Box::pin(async move { Ok(self.keys().by_subject.get(subject).cloned()) })
    }

    fn find<'a>(&'a self, ids: &'a [KeyId]) -> BoxFuture<'a, Result<Vec<SubjectKey>, KeyError>> {
        Box::pin(async move {
            let keys = self.keys();
            let known = ids.iter().filter_map(|id| keys.subjects.get(id));
            let found = known.filter_map(|subject| keys.by_subject.get(subject).cloned());
            Ok(found.collect())
        })
    }

    fn destroy<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<(), KeyError>> {
        Box::pin(async move {
            let mut keys = self.keys();
            if let Some(key) = keys.by_subject.remove(subject) {
                keys.subjects.remove(&key.id);
            }
            Ok(())
        })
    }
}
