//! Forgetting a subject.
//!
//! **Owns:** the order of what is destroyed and recorded, pseudonyms, and [`ErasureEvent`]. **Does not know:** views.
//! **Invariants:** the log records that a subject was forgotten after its key is gone, so a view that has handled that
//! event has seen the subject's values for the last time; the log never gets the name behind a pseudonym; a call that
//! failed can be repeated.

use leftfold_model::{Append, ExpectedRevision, ModelError, StreamName};
use leftfold_store::AppendError;
use serde::{Deserialize, Serialize};

use crate::{
    EncodeError, Event, ExecuteError, KeyError, Store, Subject, command::CommandContext,
    erasure::Erasure,
};

/// The kind of the subject whose key gives the pseudonym.
const PSEUDONYM: &str = "$pseudonym";
/// The kind of the key that says that a subject is being forgotten.
const FORGETTING: &str = "$forgetting";
/// Attempts to record that a subject was forgotten while the outcome of an append is unknown.
const ATTEMPTS: u32 = 5;

/// What the framework records of an erasure, in the stream `forgotten-` followed by the kind of the subject.
///
/// Listeners and projections that keep something about a subject see it: as [`crate::Listener::Event`], or as a variant
/// `#[event("SubjectForgotten")]` with the same fields in an enum of their own. It may come twice.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum ErasureEvent {
    /// The key of a subject was destroyed: delete what was kept about it.
    #[event("SubjectForgotten")]
    SubjectForgotten {
        /// The kind of the subject: `guest`.
        subject: String,
        /// The subject, as events name it: the pseudonym, if it has one.
        id: String,
    },
}

/// Why a subject could not be forgotten. Repeat the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// The store has no keys; see [`Store::with_keys`].
    #[error("store has no keys; expected a store made by `Store::with_keys`")]
    NoKeys,
    /// The key could not be destroyed.
    #[error("key of the subject could not be destroyed")]
    Keys(#[from] KeyError),
    /// The kind of the subject makes no stream name.
    #[error("kind of the subject is not valid")]
    Kind(#[from] ModelError),
    /// The event that records it could not be encoded.
    #[error("erasure could not be recorded")]
    Encode(#[from] EncodeError),
    /// The event that records it could not be appended.
    #[error("erasure could not be recorded")]
    Append(#[from] AppendError),
}

impl Store {
    /// Returns the pseudonym of a subject: a random text for streams, tags and fields, instead of a name or an address.
    /// A subject has one
    /// pseudonym until it is forgotten; nothing leads from the pseudonym to the subject but the keys.
    ///
    /// # Errors
    /// [`ForgetError::NoKeys`], [`ForgetError::Keys`].
    pub async fn pseudonym(&self, kind: &str, name: &str) -> Result<String, ForgetError> {
        let erasure = self.erasure().ok_or(ForgetError::NoKeys)?;
        let key = erasure.keys().key(&named(erasure, kind, name)).await?;
        Ok(text_of(&key.id))
    }

    /// Forgets a subject: destroys its key, so that its personal fields are read as forgotten everywhere from now on,
    /// snapshots that may
    /// hold them included. `id` is what events name it by, or the name that [`Self::pseudonym`] was called with.
    ///
    /// `false`: no key of this subject exists, so nothing was sealed for it, or it was forgotten before.
    ///
    /// Listeners and projections get an [`ErasureEvent`]. What they have written about the subject is theirs to delete.
    /// What stays is
    /// listed in `docs/erasure.md`.
    ///
    /// # Errors
    /// [`ForgetError`]; repeat the call.
    /// # Cost
    /// As the store of keys says: a key is created and three are destroyed; and two appends. All snapshots of aggregates with
    /// personal fields are taken again.
    pub async fn forget(&self, kind: &str, id: &str) -> Result<bool, ForgetError> {
        let erasure = self.erasure().ok_or(ForgetError::NoKeys)?;
        let name = named(erasure, kind, id);
        let pseudonym = erasure.keys().existing(&name).await?;
        let own = erasure.subject(kind, id);
        let mut forgotten = pseudonym.is_some();
        if let Some(pseudonym) = pseudonym {
            let text = text_of(&pseudonym.id);
            self.destroy(erasure, kind, &text).await?;
            // Last, because a repeated call needs it to find the rest.
            erasure.keys().destroy(&name).await?;
        }
        // Outlives the subject's own key: a repeated call needs it to find the rest.
        let begun = erasure.subject(&format!("{FORGETTING}:{kind}"), id);
        if erasure.keys().existing(&own).await?.is_some() {
            erasure.keys().key(&begun).await?;
        }
        if erasure.keys().existing(&begun).await?.is_some() {
            self.destroy(erasure, kind, id).await?;
            erasure.keys().destroy(&begun).await?;
            forgotten = true;
        }
        Ok(forgotten)
    }

    /// Destroys the key of a subject that events name like this, and records it: before, so that a crash leaves a trace that is
    /// repeated, and after, when no reader sees the values any more.
    async fn destroy(&self, erasure: &Erasure, kind: &str, id: &str) -> Result<(), ForgetError> {
        self.record(kind, id).await?;
        erasure.keys().destroy(&erasure.subject(kind, id)).await?;
        erasure.keys().destroy(&erasure.snapshots()).await?;
        self.record(kind, id).await
    }

    async fn record(&self, kind: &str, id: &str) -> Result<(), ForgetError> {
        let event = ErasureEvent::SubjectForgotten {
            subject: kind.to_owned(),
            id: id.to_owned(),
        };
        let events = CommandContext::of(self.clone()).events(&[event], None, 0);
        let events = events.map_err(
            |error: ExecuteError<std::convert::Infallible>| match error {
                ExecuteError::Encode(error) => ForgetError::Encode(error),
                other => ForgetError::Append(AppendError::Invalid {
                    reason: other.to_string(),
                }),
            },
        )?;
        let stream = StreamName::new(format!("forgotten-{kind}"))?;
        let append = Append::to(stream, ExpectedRevision::Any, events)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.event_store().append(append.clone()).await {
                Err(AppendError::OutcomeUnknown { .. }) if attempts < ATTEMPTS => {}
                recorded => return Ok(recorded.map(drop)?),
            }
        }
    }
}

fn named(erasure: &Erasure, kind: &str, name: &str) -> Subject {
    erasure.subject(&format!("{PSEUDONYM}:{kind}"), name)
}

fn text_of(id: &[u8; 16]) -> String {
    use std::fmt::Write as _;
    id.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
