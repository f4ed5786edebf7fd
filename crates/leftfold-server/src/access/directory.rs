//! Users, keys and access control lists, as they are now.
//!
//! **Owns:** [`Directory`], [`Rights`]: the state in memory, what changes it, and every decision about a right.
//! **Does not know:** stores, passwords, wires.
//! **Invariants:** each record and list is the one of the highest revision that was seen since all were taken in, in whatever
//! order events arrive; streams of credentials are nobody's.
//!
//! Memory: one entry for each user, for each key that was not revoked long ago, and for each stream with a list of its own.

use std::{
    collections::HashMap,
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use jiff::Timestamp;
use leftfold_model::{Query, RecordedEvent, Revision, StreamName};
use leftfold_store::{METADATA_EVENT_TYPE, StreamMetadata};
use tokio::sync::watch;

use super::{
    acl::{ADMINS, Acl, DefaultAcls},
    api_key::PresentedKey,
    grant::{Grant, Right, is_system_stream},
    principal::Principal,
    record::{
        ApiKeyInfo, KEY_CHANGED, KeyRecord, SETTINGS_STREAM, USER_CHANGED, UserInfo, UserRecord,
        is_written_by_server_only,
    },
};
use crate::{
    clock,
    credential_stream::{KEY_PREFIX, USER_PREFIX, is_credential_stream},
};

/// The group whose members may operate the server.
const OPERATORS: &str = "$ops";

/// A record with the revision of its event.
#[derive(Clone)]
pub(super) struct Versioned<T> {
    pub(super) revision: Revision,
    pub(super) value: T,
}

/// A key and its rights.
#[derive(Clone)]
pub(super) struct KnownKey {
    pub(super) record: KeyRecord,
    grants: Vec<Grant>,
}

/// Everything that decides about rights.
#[derive(Default)]
pub(super) struct Rights {
    users: HashMap<String, Versioned<UserRecord>>,
    keys: HashMap<String, Versioned<KnownKey>>,
    /// Of each stream whose metadata named a list since the server started.
    acls: HashMap<StreamName, Versioned<Acl>>,
    defaults: Option<Versioned<DefaultAcls>>,
}

/// The rights, shared.
pub(super) struct Directory {
    rights: RwLock<Rights>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Directory {
    /// Without the hashes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            rights: RwLock::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Directory {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Rights> {
        self.rights.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when rights changed.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes in what events say; others are passed over.
    pub(super) fn apply<'a>(&self, events: impl IntoIterator<Item = &'a RecordedEvent>) {
        let mut rights = self.rights.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        for event in events {
            changed |= rights.apply(
                event.stream.as_str(),
                event.event_type.as_str(),
                event.revision,
                &event.data,
            );
        }
        drop(rights);
        if changed {
            self.changes.send_modify(|generation| *generation += 1);
        }
    }

    /// Puts what another one knows in the place of all that this one knows.
    pub(super) fn take_over(&self, other: &Self) {
        let mut others = other.rights.write().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *others);
        drop(others);
        *self.rights.write().unwrap_or_else(PoisonError::into_inner) = known;
        self.changes.send_modify(|generation| *generation += 1);
    }

    /// Takes in what was appended at a revision just now.
    pub(super) fn apply_appended(
        &self,
        stream: &StreamName,
        event_type: &str,
        revision: Revision,
        data: &[u8],
    ) {
        let mut rights = self.rights.write().unwrap_or_else(PoisonError::into_inner);
        let changed = rights.apply(stream.as_str(), event_type, revision, data);
        drop(rights);
        if changed {
            self.changes.send_modify(|generation| *generation += 1);
        }
    }
}

/// Puts a value in place of an older one. Returns whether it was newer.
fn replace<K: Eq + std::hash::Hash, T>(
    map: &mut HashMap<K, Versioned<T>>,
    key: K,
    new: Versioned<T>,
) -> bool {
    match map.get(&key) {
        Some(known) if known.revision >= new.revision => false,
        _ => {
            map.insert(key, new);
            true
        }
    }
}

impl Rights {
    fn apply(&mut self, stream: &str, event_type: &str, revision: Revision, data: &[u8]) -> bool {
        if let Some(described) = stream.strip_prefix("$$") {
            return event_type == METADATA_EVENT_TYPE
                && self.apply_metadata(described, revision, data);
        }
        if stream == SETTINGS_STREAM {
            let value = DefaultAcls::from_json(data);
            let newer = self
                .defaults
                .as_ref()
                .is_none_or(|known| known.revision < revision);
            if newer {
                self.defaults = Some(Versioned { revision, value });
            }
            return newer;
        }
        match (
            stream.strip_prefix(USER_PREFIX),
            stream.strip_prefix(KEY_PREFIX),
        ) {
            (Some(login), _) if event_type == USER_CHANGED => match serde_json::from_slice(data) {
                Ok(value) => replace(
                    &mut self.users,
                    login.to_owned(),
                    Versioned { revision, value },
                ),
                Err(error) => unreadable(stream, revision, &error),
            },
            (_, Some(id)) if event_type == KEY_CHANGED => {
                match serde_json::from_slice::<KeyRecord>(data) {
                    Ok(record) => {
                        // A grant that this version does not know gives nothing.
                        let grants = record.grants.iter().filter_map(|grant| grant.parse().ok());
                        let value = KnownKey {
                            grants: grants.collect(),
                            record,
                        };
                        replace(&mut self.keys, id.to_owned(), Versioned { revision, value })
                    }
                    Err(error) => unreadable(stream, revision, &error),
                }
            }
            _ => false,
        }
    }

    fn apply_metadata(&mut self, described: &str, revision: Revision, data: &[u8]) -> bool {
        let Ok(stream) = StreamName::new(described) else {
            return false;
        };
        let acl = StreamMetadata::from_json(data).acl();
        match (acl, self.acls.contains_key(&stream)) {
            (Some(acl), _) => {
                let value = Acl::from_json(&acl);
                replace(&mut self.acls, stream, Versioned { revision, value })
            }
            // An empty list leaves everything to the defaults; it stays, for an older one may arrive later.
            (None, true) => {
                let value = Acl::default();
                replace(&mut self.acls, stream, Versioned { revision, value })
            }
            (None, false) => false,
        }
    }

    /// The user of this name who was not deleted.
    pub(super) fn user(&self, login: &str) -> Option<&Versioned<UserRecord>> {
        self.users.get(login).filter(|user| !user.value.deleted)
    }

    /// The record of this login, also of a user who was deleted.
    pub(super) fn user_record(&self, login: &str) -> Option<&Versioned<UserRecord>> {
        self.users.get(login)
    }

    pub(super) fn key_record(&self, id: &str) -> Option<&Versioned<KnownKey>> {
        self.keys.get(id)
    }

    /// All users, by login.
    pub(super) fn user_list(&self) -> Vec<UserInfo> {
        let users = self.users.iter().filter(|(_, user)| !user.value.deleted);
        let mut list: Vec<_> = users
            .map(|(login, Versioned { value, .. })| UserInfo {
                login: login.clone(),
                full_name: value.full_name.clone(),
                groups: value.groups.clone(),
                disabled: value.disabled,
                updated: value.updated,
            })
            .collect();
        list.sort_by(|a, b| a.login.cmp(&b.login));
        list
    }

    /// All keys, the oldest first.
    pub(super) fn key_list(&self) -> Vec<ApiKeyInfo> {
        let mut list: Vec<_> = self
            .keys
            .iter()
            .map(
                |(
                    id,
                    Versioned {
                        value: KnownKey { record, .. },
                        ..
                    },
                )| ApiKeyInfo {
                    id: id.clone(),
                    name: record.name.clone(),
                    grants: record.grants.clone(),
                    created: record.created,
                    expires: record.expires,
                    revoked: record.revoked,
                },
            )
            .collect();
        list.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        list
    }

    /// The principal of a key that was sent, and when it ends.
    pub(super) fn principal_of_key(&self, presented: &PresentedKey<'_>) -> Option<Principal> {
        let known = self.keys.get(presented.id)?;
        // It is compared even if it is of no use any more, so that the time tells nothing.
        let matches = presented.matches(&known.value.record.secret_hash);
        (matches && known.value.is_usable()).then(|| Principal::Key {
            id: presented.id.into(),
            name: known.value.record.name.as_str().into(),
        })
    }

    /// Whether the credential by which a principal was proved still counts.
    pub(super) fn is_current(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Anonymous => true,
            Principal::User { .. } | Principal::Token { .. } => {
                self.current_user(principal).is_some()
            }
            Principal::Key { id, .. } => self.current_key(id).is_some(),
        }
    }

    /// When the credential of a principal ends by itself.
    pub(super) fn expiry(&self, principal: &Principal) -> Option<Timestamp> {
        match principal {
            Principal::Key { id, .. } => self.keys.get(&**id)?.value.record.expires,
            Principal::Token { expires, .. } => Some(*expires),
            Principal::Anonymous | Principal::User { .. } => None,
        }
    }

    /// The login and the groups of a principal that is a user, while its credential counts.
    fn current_user<'a>(&'a self, principal: &'a Principal) -> Option<(&'a str, &'a [String])> {
        match principal {
            Principal::User { login, credential } => {
                let (login, user) = self.users.get_key_value(&**login)?;
                let user = &user.value;
                let counts = !user.deleted && !user.disabled && *user.credential == **credential;
                counts.then_some((login.as_str(), user.groups.as_slice()))
            }
            // The store's own user of the login, even a disabled one, leaves no place for another.
            Principal::Token {
                login,
                groups,
                expires,
            } => (now() < *expires && self.user(login).is_none()).then_some((login, groups)),
            Principal::Anonymous | Principal::Key { .. } => None,
        }
    }

    fn current_key(&self, id: &str) -> Option<&KnownKey> {
        let key = &self.keys.get(id)?.value;
        key.is_usable().then_some(key)
    }

    pub(super) fn is_administrator(&self, principal: &Principal) -> bool {
        self.is_member(principal, &[ADMINS])
    }

    pub(super) fn is_operator(&self, principal: &Principal) -> bool {
        self.is_member(principal, &[ADMINS, OPERATORS])
    }

    fn is_member(&self, principal: &Principal, of: &[&str]) -> bool {
        match principal {
            Principal::Anonymous => false,
            Principal::User { .. } | Principal::Token { .. } => self
                .current_user(principal)
                .is_some_and(|(_, groups)| groups.iter().any(|group| of.contains(&group.as_str()))),
            Principal::Key { id, .. } => self
                .current_key(id)
                .is_some_and(|key| key.grants.iter().any(Grant::is_administrator)),
        }
    }

    /// Whether a principal has a right on a stream. A stream of metadata is the metadata of the one it describes.
    pub(super) fn allows(&self, principal: &Principal, right: Right, stream: &StreamName) -> bool {
        match stream.described_stream() {
            Some(described) => {
                let right = match right {
                    Right::Read | Right::ReadMetadata => Right::ReadMetadata,
                    Right::Write | Right::WriteMetadata | Right::Delete => Right::WriteMetadata,
                };
                self.allows_on(principal, right, &described)
            }
            None => self.allows_on(principal, right, stream),
        }
    }

    fn allows_on(&self, principal: &Principal, right: Right, stream: &StreamName) -> bool {
        let name = stream.as_str();
        let writes = !matches!(right, Right::Read | Right::ReadMetadata);
        if is_credential_stream(name) || (writes && is_written_by_server_only(name)) {
            return false;
        }
        match principal {
            Principal::Anonymous => false,
            Principal::User { .. } | Principal::Token { .. } => {
                self.current_user(principal).is_some_and(|(login, groups)| {
                    groups.iter().any(|group| group == ADMINS)
                        || self.gives(right, stream, login, groups)
                })
            }
            Principal::Key { id, .. } => self.current_key(id).is_some_and(|key| {
                let category = stream.category_str();
                let mut grants = key.grants.iter();
                grants.any(|grant| grant.covers_stream(right, name, category))
            }),
        }
    }

    /// Whether a stream has an access control list of its own.
    pub(super) fn has_acl(&self, stream: &StreamName) -> bool {
        self.acls.contains_key(stream)
    }

    fn gives(&self, right: Right, stream: &StreamName, login: &str, groups: &[String]) -> bool {
        let own = self.acls.get(stream);
        let own = own.and_then(|acl| acl.value.gives(right, login, groups));
        own.unwrap_or_else(|| {
            let is_system = is_system_stream(stream.as_str());
            match &self.defaults {
                Some(defaults) => defaults.value.gives(right, is_system, login, groups),
                None => DefaultAcls::default().gives(right, is_system, login, groups),
            }
        })
    }

    /// Whether a principal may read an event, wherever it is met.
    pub(super) fn may_see(&self, principal: &Principal, event: &RecordedEvent) -> bool {
        self.allows(principal, Right::Read, &event.stream)
            || self.allows_by_tags(
                principal,
                Right::Read,
                event.tags.iter().map(|tag| tag.as_str()),
            ) && !is_credential_stream(event.stream.as_str())
    }

    /// Whether a key has a right on an event by one of its tags.
    pub(super) fn allows_by_tags<'a>(
        &self,
        principal: &Principal,
        right: Right,
        tags: impl Iterator<Item = &'a str> + Clone,
    ) -> bool {
        let Principal::Key { id, .. } = principal else {
            return false;
        };
        self.current_key(id).is_some_and(|key| {
            key.grants
                .iter()
                .any(|grant| grant.covers_tags(right, tags.clone()))
        })
    }

    /// Whether a key has a right on events by tags at all.
    pub(super) fn has_grants_by_tag(&self, principal: &Principal, right: Right) -> bool {
        let Principal::Key { id, .. } = principal else {
            return false;
        };
        self.current_key(id)
            .is_some_and(|key| key.grants.iter().any(|grant| grant.is_by_tag(right)))
    }

    /// Whether no stream of users is hidden from a principal.
    pub(super) fn reads_all_user_streams(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Anonymous => false,
            Principal::User { .. } | Principal::Token { .. } => {
                self.current_user(principal).is_some_and(|(login, groups)| {
                    let defaults = self.defaults.as_ref().map(|defaults| &defaults.value);
                    let by_default = defaults
                        .is_none_or(|defaults| defaults.gives(Right::Read, false, login, groups));
                    let hidden = |(stream, acl): (&StreamName, &Versioned<Acl>)| {
                        !is_system_stream(stream.as_str())
                            && acl.value.gives(Right::Read, login, groups) == Some(false)
                    };
                    groups.iter().any(|group| group == ADMINS)
                        || (by_default && !self.acls.iter().any(hidden))
                })
            }
            Principal::Key { id, .. } => self.current_key(id).is_some_and(|key| {
                let mut grants = key.grants.iter();
                grants.any(|grant| grant.covers_user_streams(Right::Read))
            }),
        }
    }

    /// Whether a principal may learn whether a query matches something: nothing that is hidden from it can match.
    pub(super) fn may_ask(&self, principal: &Principal, query: &Query) -> bool {
        if self.is_administrator(principal) {
            return true;
        }
        let items = match query {
            // It matches whatever was appended, which the head of the log tells as well.
            Query::All => return self.reads_all_user_streams(principal),
            Query::Items(items) => items,
        };
        let reads_all = self.reads_all_user_streams(principal);
        items.iter().all(|item| {
            let names_system_types = item
                .type_list()
                .iter()
                .any(|name| name.as_str().starts_with('$'));
            let tags = item.tag_list().iter().map(|tag| tag.as_str());
            (reads_all && !names_system_types) || self.allows_by_tags(principal, Right::Read, tags)
        })
    }
}

impl KnownKey {
    /// Whether it was neither revoked nor has ended by itself.
    fn is_usable(&self) -> bool {
        !self.record.revoked && self.record.expires.is_none_or(|expires| now() < expires)
    }
}

/// The current time; the end of all times if the clock cannot be used, so that credentials that end have ended.
fn now() -> Timestamp {
    Timestamp::try_from(clock::now()).unwrap_or(Timestamp::MAX)
}

/// Logs a record that cannot be read, and changes nothing.
fn unreadable(stream: &str, revision: Revision, error: &serde_json::Error) -> bool {
    tracing::error!(%stream, %revision, %error, "record of access control is unreadable");
    false
}
