//! The keys of subjects.
//!
//! **Owns:** the contract [`KeyStore`] and its values. **Does not know:** what a key seals.
//! **Invariants:** a key is random and belongs to one subject; a destroyed key never comes back: the subject's next one
//! is another; keys are never in the log, and no debug output shows one.
//! **Reading order:** [`Subject`], [`SubjectKey`], [`KeyStore`], `memory`, `file`.

#[cfg(feature = "engine")]
mod cache;
#[cfg(feature = "engine")]
mod file;
mod memory;

use std::fmt;

use futures_core::future::BoxFuture;
use zeroize::Zeroize;

#[cfg(feature = "engine")]
pub use file::FileKeys;
pub use memory::MemoryKeys;

/// A person, or whatever else is to be forgotten as one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The tenant's part of stored names; empty for a store without a tenant.
    pub tenant: String,
    /// What it is: `guest`.
    pub kind: String,
    /// Which one it is, as events name it.
    pub id: String,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ids may tell who it is.
        write!(f, "Subject({:?}, ..)", self.kind)
    }
}

/// The name of a key: random, so that it says nothing about the subject.
pub type KeyId = [u8; 16];

/// A key of a subject. Its memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectKey {
    /// Its name, which stands beside each value that it seals.
    pub id: KeyId,
    /// The secret.
    pub secret: [u8; 32],
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectKey(..)")
    }
}

impl Drop for SubjectKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl SubjectKey {
    /// Creates a random key. For stores of keys.
    ///
    /// # Errors
    /// [`KeyError::Random`] if the system gives no random bytes.
    pub fn random() -> Result<Self, KeyError> {
        let mut key = Self {
            id: [0; 16],
            secret: [0; 32],
        };
        fill(&mut key.id)?;
        fill(&mut key.secret)?;
        Ok(key)
    }
}

/// Fills bytes from the system's source of randomness.
fn fill(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|error| KeyError::Random {
        reason: error.to_string(),
    })
}

/// Why a key cannot be read, created or destroyed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The keys cannot be reached or changed now. Whether a key was destroyed is unknown; destroy it again.
    #[error("keys are unavailable: {reason}")]
    Unavailable {
        /// What is wrong, without any key.
        reason: String,
    },
    /// The disk has no room for the change. The same call may succeed later.
    #[error("keys cannot be changed: the disk is full: {reason}")]
    DiskFull {
        /// The system's error.
        reason: String,
    },
    /// The system gives no random bytes.
    #[error("no key can be created: the system gives no random bytes: {reason}")]
    Random {
        /// The system's error.
        reason: String,
    },
}

/// Keeps the keys of subjects, apart from the log: with a copy of the log and of the keys, everything can be read.
///
/// Back keys up apart from the log, and keep those backups for as short a time as the law gives for an erasure: a key
/// that is restored from a backup brings back what it sealed.
///
/// # Cancel safety
/// Dropping a future does not cancel a change. Each call may be repeated.
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the key of a subject, creating it durably if there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    fn key<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<SubjectKey, KeyError>>;

    /// Returns the key of a subject; `None` if there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    fn existing<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<SubjectKey>, KeyError>>;

    /// Returns the keys of these names, those that exist, in any order.
    ///
    /// # Errors
    /// [`KeyError`].
    fn find<'a>(&'a self, ids: &'a [KeyId]) -> BoxFuture<'a, Result<Vec<SubjectKey>, KeyError>>;

    /// Destroys the key of a subject; none is no error. After `Ok` no call returns it. What storage keeps of its bytes, and
    /// for how long, is said by each store of keys.
    ///
    /// # Errors
    /// [`KeyError`].
    fn destroy<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<(), KeyError>>;
}
