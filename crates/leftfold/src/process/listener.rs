//! A process as a listener.
//!
//! **Owns:** [`ProcessListener`]: from events and timers to reactions, commands and changes of timers.
//! **Does not know:** how events are dispatched. **Invariants:** changes of timers are queued only after the reaction that they
//! belong to is committed; a timer fires only if the log records it as set.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use leftfold_store::consumers::{ConsumerChange, Timer};

use super::{
    definition::Process,
    handler::{CommandHandler, Sent},
    react::{Reacted, Reactor, Stimulus, StimulusCause},
    reaction::Seen,
    timers::{SetTimer, TimerData, timer, timer_id},
};
use crate::{
    Follow, HandlerError, Listener, Recorded, Store,
    causation::{self, Cause},
    metadata::derived_id,
};

/// Runs a process; made by [`Store::process`].
pub struct ProcessListener<P: Process, H> {
    store: Store,
    reactor: Reactor<P>,
    handler: H,
    changes: Mutex<Vec<ConsumerChange>>,
}

impl<P: Process, H> fmt::Debug for ProcessListener<P, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessListener").finish_non_exhaustive()
    }
}

impl Store {
    /// Configures a process and the handler of its commands: see [`Process`].
    ///
    /// As with [`Store::repository`], a program does not compile if no stream can have the category of the process:
    ///
    /// ```compile_fail,E0080
    /// # use leftfold::{CommandHandler, HandlerError, Process, Reaction, Recorded, Seen, Sent, Store};
    /// # #[derive(leftfold::Event, serde::Serialize, serde::Deserialize)]
    /// # enum CareEvent { #[event("CareNoted")] Noted }
    /// # #[derive(Default)]
    /// # struct Care;
    /// impl leftfold::Aggregate for Care {
    ///     const CATEGORY: &'static str = "guest-care";
    /// #   type Event = CareEvent;
    /// #   fn apply(&mut self, _: &CareEvent) {}
    /// }
    /// # impl Process for Care {
    /// #     type Sees = CareEvent;
    /// #     type Command = ();
    /// #     const NAME: &'static str = "care";
    /// #     fn route(_: &Recorded<CareEvent>) -> Option<String> { None }
    /// #     fn react(&self, _: Seen<'_, CareEvent>) -> Reaction<CareEvent, ()> { Reaction::ignore() }
    /// # }
    /// # struct Handler;
    /// # impl CommandHandler<()> for Handler {
    /// #     async fn carry_out(&self, (): &(), _: &Sent) -> Result<(), HandlerError> { Ok(()) }
    /// # }
    /// Store::memory().process::<Care, _>(Handler).spawn();
    /// ```
    pub fn process<P: Process, H: CommandHandler<P::Command>>(
        &self,
        handler: H,
    ) -> Follow<ProcessListener<P, H>> {
        self.follow(ProcessListener {
            store: self.clone(),
            reactor: Reactor::new(self.clone()),
            handler,
            changes: Mutex::default(),
        })
    }
}

impl<P: Process, H: CommandHandler<P::Command>> ProcessListener<P, H> {
    /// Commits a reaction, carries out its commands, and queues its changes of the index of timers. `fired` is the entry of a
    /// timer that is due: it goes behind all other changes, because it makes the reaction come again while any of it is missing.
    async fn react(
        &self,
        id: &str,
        stimulus: Stimulus<'_, P>,
        fired: Option<&str>,
    ) -> Result<(), HandlerError> {
        let mut reacted = self.reactor.react(id, &stimulus).await?;
        reacted.reaction.check()?;
        let mut changes = self.timer_changes(id, &reacted).await?;
        if let Some(fired) = fired {
            let is_fired = |change: &ConsumerChange| matches!(change, ConsumerChange::CancelTimer(id) if id == fired);
            changes.retain(|change| !is_fired(change));
            changes.push(ConsumerChange::CancelTimer(fired.to_owned()));
        }
        let mut metadata = std::mem::take(&mut reacted.metadata);
        metadata.causation = reacted.event.map(|event| event.to_string());
        let metadata = Arc::new(metadata);
        for (command, nth) in reacted.reaction.commands.iter().zip(0_u32..) {
            let sent = Sent {
                store: self.store.clone(),
                process: P::NAME,
                id: id.to_owned(),
                key: derived_id(&[P::NAME, id, &stimulus.key, &nth.to_string()]).to_string(),
                metadata: Arc::clone(&metadata),
                is_first: !reacted.repeated,
            };
            let cause = Cause::Effect(Arc::clone(&metadata));
            causation::scope(Some(cause), self.handler.carry_out(command, &sent)).await?;
        }
        if !changes.is_empty() {
            let mut handed_on = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            handed_on.append(&mut changes);
        }
        Ok(())
    }

    /// Returns the changes that a reaction makes to the index of timers. A repeated reaction sets only what the log still has as
    /// it set it: a later reaction may have moved or cancelled its timers, or be what they caused.
    async fn timer_changes(
        &self,
        id: &str,
        reacted: &Reacted<P>,
    ) -> Result<Vec<ConsumerChange>, HandlerError> {
        let (Some(by), false) = (reacted.event, reacted.timers.is_empty()) else {
            return Ok(Vec::new());
        };
        let now = match reacted.repeated {
            true => Some(self.reactor.set_timers(id).await?),
            false => None,
        };
        // What sets comes first: the changes may be stored in parts, and an entry that goes may be what brings the reaction back.
        let (mut changes, mut cancelled) = (Vec::new(), Vec::new());
        for name in reacted.timers.names() {
            if let Some(due) = reacted.timers.due(name) {
                let set = SetTimer { due, by };
                if now.as_ref().is_none_or(|now| now.get(name) == Some(set)) {
                    changes.push(ConsumerChange::SetTimer(timer(P::NAME, id, name, set)?));
                }
            }
            if let Some(set) = reacted.before.get(name) {
                let id = timer_id(P::NAME, id, name, set);
                cancelled.push(ConsumerChange::CancelTimer(id));
            }
        }
        changes.append(&mut cancelled);
        Ok(changes)
    }
}

impl<P: Process, H: CommandHandler<P::Command>> Listener for ProcessListener<P, H> {
    type Event = P::Sees;
    const NAME: &'static str = P::NAME;
    const IS_PROCESS: bool = true;

    async fn on(&self, event: &Recorded<P::Sees>) -> Result<(), HandlerError> {
        let Some(id) = P::route(event) else {
            return Ok(());
        };
        let stimulus = Stimulus {
            seen: Seen::Event(event),
            time: event.time,
            key: format!("event {} {}", event.id, event.part),
            cause: StimulusCause::Event(event.metadata.of_effect(event.id)),
        };
        // In memory of its own, so that what wraps a handler copies a pointer and not the reaction.
        Box::pin(self.react(&id, stimulus, None)).await
    }

    fn key(event: &Recorded<P::Sees>) -> String {
        P::route(event).unwrap_or_default()
    }

    async fn on_timer(&self, due: &Timer) -> Result<(), HandlerError> {
        let TimerData { process, timer, by } = serde_json::from_slice(&due.data)?;
        let stimulus = Stimulus {
            seen: Seen::Timer(&timer),
            time: due.due,
            key: format!("timer {by} {timer}"),
            cause: StimulusCause::Timer(&by),
        };
        // The entry of the index goes; the reaction may set another.
        Box::pin(self.react(&process, stimulus, Some(&due.id))).await
    }

    fn timer_key(timer: &Timer) -> String {
        let data = serde_json::from_slice::<TimerData>(&timer.data);
        data.map(|data| data.process).unwrap_or_default()
    }

    fn take_changes(&self) -> Vec<ConsumerChange> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut changes)
    }
}
