//! What a consumer of a group may be given.
//!
//! **Owns:** [`GroupReader`]: the right to consume a group, and which of its events its consumer may see.
//! **Does not know:** groups; wires.
//! **Invariants:** a group reads with the rights of the server, so every event of it passes here before a consumer gets it; a
//! consumer whose right has ended gets nothing more.

use std::sync::Arc;

use leftfold_model::{RecordedEvent, StreamName};
use leftfold_store::ReadError;
use tokio::{sync::watch, time::Instant};

use super::{Denied, GuardedStore, reading::until};
use crate::{
    access::{control::AccessControl, directory::Rights, grant::Right, principal::Principal},
    system_index::SystemIndex,
};

/// The rights of one consumer of a group.
#[derive(Debug)]
pub(crate) struct GroupReader {
    guard: GuardedStore,
    /// What the group reads; `None`: the whole log.
    stream: Option<StreamName>,
    changes: watch::Receiver<u64>,
    expires: Option<Instant>,
}

impl AccessControl {
    /// The rights of a principal that wants to consume a group of a stream, or of the whole log.
    ///
    /// # Errors
    /// [`ReadError::AccessDenied`]: it may not consume the group.
    pub(crate) fn group_reader(
        self: &Arc<Self>,
        principal: Principal,
        stream: Option<StreamName>,
    ) -> Result<GroupReader, ReadError> {
        let changes = self.directory.changes();
        let expires = self.directory.read().expiry(&principal);
        let access = Arc::clone(self);
        let reader = GroupReader {
            guard: GuardedStore { access, principal },
            stream,
            changes,
            expires: expires.map(|expires| Instant::now() + until(expires)),
        };
        reader.check()?;
        Ok(reader)
    }
}

impl GroupReader {
    /// Whether the right to consume is there at this moment.
    ///
    /// The whole stream must be readable: consumers share the group's events, so none can be left out for one of them. Links
    /// of a computed index name streams, so they need the right to read every stream beside that to read the index. Groups of
    /// everything are for administrators.
    fn check(&self) -> Result<(), ReadError> {
        let principal = &self.guard.principal;
        let decide = |rights: &Rights| {
            let Some(stream) = &self.stream else {
                return match rights.is_administrator(principal) {
                    true => Ok(()),
                    false => Err(format!(
                        "{principal} may not consume a group of everything; administrators may"
                    )),
                };
            };
            self.guard.needs(rights, Right::Read, stream)?;
            if SystemIndex::named(stream).is_some() && !rights.reads_all_user_streams(principal) {
                return Err(format!(
                    "{principal} may not consume a group of index {stream}, which names streams that it may not read"
                ));
            }
            Ok(())
        };
        Ok(self.guard.decide(decide)?)
    }

    /// Whether the consumer may see an event that the group found.
    ///
    /// # Errors
    /// [`ReadError::AccessDenied`]: the credentials have ended.
    pub(crate) fn may_see(&self, event: &RecordedEvent) -> Result<bool, ReadError> {
        let rights = self.guard.access.directory.read();
        if !rights.is_current(&self.guard.principal) {
            return Err(Denied(self.guard.expired()).into());
        }
        Ok(rights.may_see(&self.guard.principal, event))
    }

    /// The denial of an event that the group found.
    pub(crate) fn denial(&self, event: &RecordedEvent) -> ReadError {
        Denied(self.guard.missing(Right::Read, &event.stream)).into()
    }

    /// Waits until the right to consume has ended, and returns why.
    ///
    /// Cancel safe: what is waited for is not lost.
    pub(crate) async fn ended(&mut self) -> ReadError {
        loop {
            let expires = self.expires;
            let expired = async move {
                match expires {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expired => return Denied(self.guard.expired()).into(),
                // It cannot be closed, for the guard holds the directory.
                _ = self.changes.changed() => if let Err(denied) = self.check() {
                    return denied;
                },
            }
        }
    }
}
