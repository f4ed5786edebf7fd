//! Changing users and keys.
//!
//! **Owns:** [`Registry`]: checks of what is asked, and appends of records. **Does not know:** who asks.
//! **Invariants:** a change is appended under the revision it was made from, so that of two at a time one fails; it counts on
//! this server once it is answered; the streams keep one event each, so that a scavenge erases earlier hashes.

use std::sync::Arc;

use jiff::Timestamp;
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName, StreamWrite};
use leftfold_store::{EventStore, METADATA_EVENT_TYPE, StreamMetadata};

use super::{
    api_key::{NewApiKey, hex},
    directory::{Directory, Versioned},
    error::AccessError,
    grant::Grant,
    password,
    principal::Principal,
    record::{
        ApiKeyInfo, KEY_CHANGED, KeyRecord, USER_CHANGED, UserInfo, UserRecord, key_stream,
        user_stream,
    },
};
use crate::{blocking_threads::BlockingThreads, clock};

/// Bytes of a login, of a group and of a full name, at most.
const NAME_BYTES_MAX: usize = 128;
/// Groups of a user and grants of a key, at most.
pub(crate) const GROUPS_MAX: usize = 64;
/// Passwords that are hashed at a time; each takes a core and 19 MiB.
const HASHING_MAX: usize = 2;
/// Users and keys, at most. Each takes memory while the server runs.
const RECORDS_MAX: usize = 100_000;

/// The records of a store, to be changed.
#[derive(Debug)]
pub(crate) struct Registry {
    store: Arc<dyn EventStore>,
    directory: Arc<Directory>,
    hashing: BlockingThreads,
}

impl Registry {
    pub(super) fn new(store: Arc<dyn EventStore>, directory: Arc<Directory>) -> Self {
        Self {
            store,
            directory,
            hashing: BlockingThreads::new(HASHING_MAX),
        }
    }

    pub(crate) fn users(&self) -> Vec<UserInfo> {
        self.directory.read().user_list()
    }

    pub(crate) fn keys(&self) -> Vec<ApiKeyInfo> {
        self.directory.read().key_list()
    }

    pub(super) fn has_users(&self) -> bool {
        !self.users().is_empty()
    }

    /// Creates a user.
    pub(crate) async fn create_user(
        &self,
        login: &str,
        password: &str,
        full_name: &str,
        groups: Vec<String>,
    ) -> Result<(), AccessError> {
        check_login(login)?;
        check_text("full name", full_name)?;
        check_groups(&groups)?;
        let expected = {
            let rights = self.directory.read();
            if rights.user(login).is_some() {
                return Err(AccessError::UserExists {
                    login: login.to_owned(),
                });
            }
            if rights.user_list().len() >= RECORDS_MAX {
                return Err(too_many("users"));
            }
            let before = rights.user_record(login).map(|record| record.revision);
            before.map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact)
        };
        let record = UserRecord {
            full_name: full_name.to_owned(),
            groups,
            disabled: false,
            deleted: false,
            password_hash: self.hashed(password).await?,
            credential: fresh_credential()?,
            updated: now(),
        };
        self.append(user_stream(login)?, USER_CHANGED, &record, expected)
            .await
    }

    /// Changes the full name and the groups of a user.
    pub(crate) async fn update_user(
        &self,
        login: &str,
        full_name: &str,
        groups: Vec<String>,
    ) -> Result<(), AccessError> {
        check_text("full name", full_name)?;
        check_groups(&groups)?;
        self.change_user(login, |record| {
            full_name.clone_into(&mut record.full_name);
            record.groups = groups;
        })
        .await
    }

    /// Sets the groups of a user.
    pub(crate) async fn set_groups(
        &self,
        login: &str,
        groups: Vec<String>,
    ) -> Result<(), AccessError> {
        check_groups(&groups)?;
        self.change_user(login, |record| record.groups = groups)
            .await
    }

    /// Lets a user authenticate, or not.
    pub(crate) async fn set_user_disabled(
        &self,
        login: &str,
        disabled: bool,
    ) -> Result<(), AccessError> {
        self.change_user(login, |record| record.disabled = disabled)
            .await
    }

    /// Deletes a user. Another one of the login may be created later, and has none of the rights of this one's credentials.
    pub(crate) async fn delete_user(&self, login: &str) -> Result<(), AccessError> {
        self.change_user(login, |record| {
            record.deleted = true;
            record.password_hash.clear();
            record.groups.clear();
        })
        .await
    }

    /// Sets the password of a user; what was begun with the one before ends.
    pub(crate) async fn set_password(
        &self,
        login: &str,
        password: &str,
    ) -> Result<(), AccessError> {
        self.known_user(login)?;
        let (hash, credential) = (self.hashed(password).await?, fresh_credential()?);
        self.change_user(login, |record| {
            record.password_hash = hash;
            record.credential = credential;
        })
        .await
    }

    /// Sets the password of a user whose current one was verified. Fails if that one has changed since.
    pub(crate) async fn replace_password(
        &self,
        verified: &Principal,
        password: &str,
    ) -> Result<(), AccessError> {
        let Principal::User { login, credential } = verified else {
            return Err(AccessError::WrongPassword);
        };
        let known = self.known_user(login)?;
        if *known.value.credential != **credential {
            return Err(AccessError::WrongPassword);
        }
        let (hash, credential) = (self.hashed(password).await?, fresh_credential()?);
        self.change_known(login, known, |record| {
            record.password_hash = hash;
            record.credential = credential;
        })
        .await
    }

    async fn hashed(&self, password: &str) -> Result<String, AccessError> {
        let failed = |error: &dyn std::error::Error| AccessError::Hashing(error.to_string());
        let password = password.to_owned();
        let turn = self.hashing.turn().await.map_err(|error| failed(&error))?;
        let hashed = turn.run(move || password::hash(&password)).await;
        hashed.map_err(|error| failed(&error))?
    }

    fn known_user(&self, login: &str) -> Result<Versioned<UserRecord>, AccessError> {
        let rights = self.directory.read();
        rights
            .user(login)
            .cloned()
            .ok_or_else(|| AccessError::UserNotFound {
                login: login.to_owned(),
            })
    }

    async fn change_user(
        &self,
        login: &str,
        change: impl FnOnce(&mut UserRecord),
    ) -> Result<(), AccessError> {
        self.change_known(login, self.known_user(login)?, change)
            .await
    }

    async fn change_known(
        &self,
        login: &str,
        known: Versioned<UserRecord>,
        change: impl FnOnce(&mut UserRecord),
    ) -> Result<(), AccessError> {
        let Versioned {
            revision,
            value: mut record,
        } = known;
        change(&mut record);
        record.updated = now();
        let expected = ExpectedRevision::Exact(revision);
        self.append(user_stream(login)?, USER_CHANGED, &record, expected)
            .await
    }

    /// Makes a key.
    pub(crate) async fn create_key(
        &self,
        name: &str,
        grants: &[Grant],
        expires: Option<Timestamp>,
    ) -> Result<NewApiKey, AccessError> {
        check_text("key name", name)?;
        if !(1..=GROUPS_MAX).contains(&grants.len()) {
            return Err(list_length("grants", grants.len(), 1));
        }
        if self.keys().len() >= RECORDS_MAX {
            return Err(too_many("keys"));
        }
        let key = NewApiKey::random()?;
        let record = KeyRecord {
            name: name.to_owned(),
            grants: grants.iter().map(ToString::to_string).collect(),
            secret_hash: key.secret_hash.clone(),
            created: now(),
            expires,
            revoked: false,
        };
        let stream = key_stream(&key.id)?;
        self.append(stream, KEY_CHANGED, &record, ExpectedRevision::NoStream)
            .await?;
        Ok(key)
    }

    /// Ends a key.
    pub(crate) async fn revoke_key(&self, id: &str) -> Result<(), AccessError> {
        let (revision, mut record) = {
            let rights = self.directory.read();
            let known = rights
                .key_record(id)
                .ok_or_else(|| AccessError::KeyNotFound { id: id.to_owned() })?;
            (known.revision, known.value.record.clone())
        };
        record.revoked = true;
        let expected = ExpectedRevision::Exact(revision);
        self.append(key_stream(id)?, KEY_CHANGED, &record, expected)
            .await
    }

    async fn append<T: serde::Serialize>(
        &self,
        stream: StreamName,
        event_type: &'static str,
        record: &T,
        expected: ExpectedRevision,
    ) -> Result<(), AccessError> {
        let data =
            serde_json::to_vec(record).map_err(|error| AccessError::Hashing(error.to_string()))?;
        let event = NewEvent::json(EventType::new(event_type)?, data.clone());
        let mut writes = vec![StreamWrite {
            stream: stream.clone(),
            expected,
            events: vec![event],
        }];
        if expected == ExpectedRevision::NoStream {
            let keep_one = StreamMetadata::default().with_max_count(1).to_json();
            writes.push(StreamWrite {
                stream: StreamName::new(format!("$${stream}"))?,
                expected: ExpectedRevision::Any,
                events: vec![NewEvent::json(
                    EventType::new(METADATA_EVENT_TYPE)?,
                    keep_one,
                )],
            });
        }
        self.store.append(Append::new(writes, Vec::new())?).await?;
        let revision = expected.next_revision().unwrap_or_default();
        self.directory
            .apply_appended(&stream, event_type, revision, &data);
        Ok(())
    }
}

fn fresh_credential() -> Result<String, AccessError> {
    Ok(hex(&password::random_bytes::<16>()?))
}

fn now() -> Timestamp {
    Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn check_login(login: &str) -> Result<(), AccessError> {
    // A colon ends the login in Basic credentials.
    let fits = (1..=NAME_BYTES_MAX).contains(&login.len());
    if fits && login.chars().all(|c| c.is_ascii_graphic() && c != ':') && !login.starts_with('$') {
        return Ok(());
    }
    Err(AccessError::Invalid {
        what: "login",
        value: leftfold_model::truncate_for_display(login, NAME_BYTES_MAX).into_owned(),
        expected: format!(
            "1 to {NAME_BYTES_MAX} printable ASCII characters without spaces and colons, no $ in front"
        ),
    })
}

fn check_text(what: &'static str, text: &str) -> Result<(), AccessError> {
    if text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(AccessError::Invalid {
        what,
        value: leftfold_model::truncate_for_display(text, NAME_BYTES_MAX).into_owned(),
        expected: format!("at most {NAME_BYTES_MAX} bytes"),
    })
}

fn check_groups(groups: &[String]) -> Result<(), AccessError> {
    if groups.len() > GROUPS_MAX {
        return Err(list_length("groups", groups.len(), 0));
    }
    groups
        .iter()
        .try_for_each(|group| check_text("group", group))
}

fn list_length(what: &'static str, length: usize, min: usize) -> AccessError {
    AccessError::Invalid {
        what,
        value: length.to_string(),
        expected: format!("{min} to {GROUPS_MAX} of them"),
    }
}

fn too_many(what: &'static str) -> AccessError {
    AccessError::Invalid {
        what,
        value: RECORDS_MAX.to_string(),
        expected: format!("fewer than {RECORDS_MAX} before another is created"),
    }
}

#[cfg(test)]
mod tests {
    use leftfold_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_password_that_was_changed_since_it_was_verified_is_not_replaced() {
        let directory = Arc::new(Directory::default());
        let registry = Registry::new(Arc::new(MemoryStore::new()), Arc::clone(&directory));
        let created = registry.create_user("ann", "correct horse", "Ann", vec![]);
        created.await.unwrap();
        let verified = |registry: &Registry| Principal::User {
            login: "ann".into(),
            credential: registry
                .known_user("ann")
                .unwrap()
                .value
                .credential
                .as_str()
                .into(),
        };
        let before = verified(&registry);
        registry.set_password("ann", "by an admin").await.unwrap();
        let late = registry.replace_password(&before, "by a thief").await;
        assert!(matches!(late, Err(AccessError::WrongPassword)), "{late:?}");
        let current = verified(&registry);
        let in_time = registry.replace_password(&current, "by herself").await;
        in_time.unwrap();
        assert!(
            !directory.read().is_current(&current),
            "it ends what was begun"
        );
    }
}
