//! Keys in memory, in front of a file that this process alone changes.
//!
//! **Owns:** [`KeyCache`]: the keys used last, by subject and by name. **Does not know:** the file.
//! **Invariants:** memory is bounded; a key that is removed is wiped once nothing uses it; keys are put and removed by the holder
//! of the file's lock alone, so none comes back behind its removal.

use std::{fmt, sync::Arc};

use quick_cache::sync::Cache;

use super::{KeyId, Subject, SubjectKey};

/// Keys in memory, at most.
const KEYS_MAX: usize = 10_000;

/// See the module.
pub(super) struct KeyCache {
    by_subject: Cache<Subject, Arc<SubjectKey>>,
    by_id: Cache<KeyId, Arc<SubjectKey>>,
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache")
            .field("keys", &self.by_id.len())
            .finish_non_exhaustive()
    }
}

impl KeyCache {
    pub(super) fn new() -> Self {
        Self {
            by_subject: Cache::new(KEYS_MAX),
            by_id: Cache::new(KEYS_MAX),
        }
    }

    /// Returns the key of a subject, if it is in memory.
    pub(super) fn of(&self, subject: &Subject) -> Option<SubjectKey> {
        let key = self.by_subject.get(subject)?;
        Some(SubjectKey::clone(&key))
    }

    /// Returns the keys of these names if all of them are in memory.
    pub(super) fn all(&self, ids: &[KeyId]) -> Option<Vec<SubjectKey>> {
        let key = |id| self.by_id.get(id).map(|key| SubjectKey::clone(&key));
        ids.iter().map(key).collect()
    }

    /// Takes note of the key of a subject.
    pub(super) fn put(&self, subject: &Subject, key: &SubjectKey) {
        let key = Arc::new(key.clone());
        self.by_id.insert(key.id, Arc::clone(&key));
        self.by_subject.insert(subject.clone(), key);
    }

    /// Takes note of a key whose subject is not asked for.
    pub(super) fn put_by_id(&self, key: &SubjectKey) {
        self.by_id.insert(key.id, Arc::new(key.clone()));
    }

    /// Removes the key of a subject.
    pub(super) fn remove(&self, subject: &Subject, id: &KeyId) {
        self.by_subject.remove(subject);
        self.by_id.remove(id);
    }

    /// Removes all keys.
    pub(super) fn clear(&self) {
        self.by_subject.clear();
        self.by_id.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_a_removed_key_is_found_neither_by_subject_nor_by_name() {
        let subject = |nth: usize| Subject {
            tenant: String::new(),
            kind: "guest".to_owned(),
            id: nth.to_string(),
        };
        let cache = KeyCache::new();
        for nth in 0..2 * KEYS_MAX {
            cache.put(&subject(nth), &SubjectKey::random().unwrap());
        }
        assert!(cache.by_subject.len() <= KEYS_MAX && cache.by_id.len() <= KEYS_MAX);
        let (one, key) = (subject(1), SubjectKey::random().unwrap());
        cache.put(&one, &key);
        cache.put_by_id(&key);
        assert_eq!(cache.of(&one), Some(key.clone()));
        assert_eq!(cache.all(&[key.id]), Some(vec![key.clone()]));
        cache.remove(&one, &key.id);
        assert_eq!(cache.of(&one), None);
        assert_eq!(cache.all(&[key.id]), None);
    }
}
