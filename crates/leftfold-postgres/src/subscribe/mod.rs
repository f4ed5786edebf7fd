//! Subscriptions: catching up with the log, and following its tail.
//!
//! **Owns:** the modules of subscribing, and the notifications between processes. **Does not know:** appends.
//! **Invariants:** a notification only wakes. Events are read from the log beyond the checkpoint, in the order of positions,
//! so a lost, late or repeated notification changes nothing but the time. One task reads new events for all subscriptions
//! that have caught up.
//! **Reading order:** `subscription`, `tail`, `recent`.

mod recent;
mod subscription;
mod tail;

pub(crate) use subscription::subscribe;
pub(crate) use tail::Tail;

use crate::PostgresOptions;

/// The channel on which appends to a schema are announced. At most 63 bytes, and the same for the same schema.
fn channel(options: &PostgresOptions) -> String {
    let mut name = format!("leftfold {}", options.schema());
    while name.len() > 63 {
        name.pop();
    }
    name
}

/// The statement that announces an append with the commit of its transaction.
pub(crate) fn notify(options: &PostgresOptions) -> String {
    format!("select pg_notify('{}', '')", channel(options))
}

/// The statement that announces earlier appends, without waiting for a disk or a standby.
pub(crate) fn notify_unsynced(options: &PostgresOptions) -> String {
    format!(
        "select set_config('synchronous_commit', 'off', true), pg_notify('{}', '')",
        channel(options)
    )
}
