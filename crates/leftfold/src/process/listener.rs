//! A process as a listener.
//!
//! **Owns:** [`ProcessListener`]: from events and timers to reactions, commands and changes of timers.
//! **Does not know:** how events are dispatched. **Invariants:** changes of timers are queued only after the reaction that they
//! belong to is committed; a timer fires only if the log records it as set.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Mutex, PoisonError},
};

use leftfold_model::StreamName;
use leftfold_store::consumers::{ConsumerChange, Timer};

use super::{
    definition::Process,
    handler::{CommandHandler, Sent},
    react::{Reacted, Stimulus, react},
    reaction::Seen,
    timers::{SetTimer, SetTimers, TimerData, timer, timer_id},
};
use crate::{
    Follow, HandlerError, Listener, Metadata, Recorded, Store,
    causation::{self, Cause},
    command::CommandContext,
    metadata::derived_id,
};

/// Runs a process; made by [`Store::process`].
pub struct ProcessListener<P, H> {
    store: Store,
    handler: H,
    changes: Mutex<Vec<ConsumerChange>>,
    of: PhantomData<fn() -> P>,
}

impl<P, H> fmt::Debug for ProcessListener<P, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessListener").finish_non_exhaustive()
    }
}

impl Store {
    /// Configures a process and the handler of its commands: see [`Process`].
    pub fn process<P: Process, H: CommandHandler<P::Command>>(
        &self,
        handler: H,
    ) -> Follow<ProcessListener<P, H>> {
        self.follow(ProcessListener {
            store: self.clone(),
            handler,
            changes: Mutex::default(),
            of: PhantomData,
        })
    }
}

impl<P: Process, H: CommandHandler<P::Command>> ProcessListener<P, H> {
    /// Commits a reaction, carries out its commands, and queues its changes of the index of timers, `last` behind the others:
    /// what makes the reaction come again goes when nothing of it is missing.
    async fn react(
        &self,
        id: &str,
        stimulus: Stimulus<'_, P>,
        last: Option<ConsumerChange>,
    ) -> Result<(), HandlerError> {
        let repository = self.store.repository::<P>();
        let context = CommandContext::of(self.store.clone());
        let reacted = react(&repository, &context, id, &stimulus).await?;
        reacted.reaction.check()?;
        let changes = self
            .timer_changes(&repository.stream(id)?, id, &reacted)
            .await?;
        let mut metadata = stimulus.metadata;
        metadata.causation = reacted.event.map(|event| event.to_string());
        for (command, nth) in reacted.reaction.commands.iter().zip(0_u32..) {
            let sent = Sent {
                store: self.store.clone(),
                process: P::NAME,
                id: id.to_owned(),
                key: derived_id(&[P::NAME, id, &stimulus.key, &nth.to_string()]).to_string(),
                metadata: metadata.clone(),
            };
            let cause = Some(Cause::from(metadata.clone()));
            causation::scope(cause, self.handler.carry_out(command, &sent)).await?;
        }
        let mut handed_on = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        handed_on.extend(changes.into_iter().chain(last));
        Ok(())
    }

    /// Returns the changes that a reaction makes to the index of timers. A repeated reaction sets only what the log still has as
    /// it set it: a later reaction may have moved or cancelled its timers, or be what they caused.
    async fn timer_changes(
        &self,
        stream: &StreamName,
        id: &str,
        reacted: &Reacted<P>,
    ) -> Result<Vec<ConsumerChange>, HandlerError> {
        let mut names = reacted.timers.names().peekable();
        let (Some(by), Some(_)) = (reacted.event, names.peek()) else {
            return Ok(Vec::new());
        };
        let store = self.store.event_store().as_ref();
        let before = SetTimers::load_before(store, stream, Some(by)).await?;
        let now = match reacted.repeated {
            true => Some(SetTimers::load(store, stream).await?),
            false => None,
        };
        // What sets comes first: the changes may be stored in parts, and an entry that goes may be what brings the reaction back.
        let (mut changes, mut cancelled) = (Vec::new(), Vec::new());
        for name in names {
            if let Some(due) = reacted.timers.due(name) {
                let set = SetTimer { due, by };
                if now.as_ref().is_none_or(|now| now.get(name) == Some(set)) {
                    changes.push(ConsumerChange::SetTimer(timer(P::NAME, id, name, set)?));
                }
            }
            if let Some(set) = before.get(name) {
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
    const HAS_TIMERS: bool = true;

    async fn on(&self, event: &Recorded<P::Sees>) -> Result<(), HandlerError> {
        let Some(id) = P::route(event) else {
            return Ok(());
        };
        let stimulus = Stimulus {
            seen: Seen::Event(event),
            holds: true,
            time: event.time,
            key: format!("event {} {}", event.id, event.part),
            metadata: event.metadata.of_effect(event.id),
        };
        self.react(&id, stimulus, None).await
    }

    fn key(event: &Recorded<P::Sees>) -> String {
        P::route(event).unwrap_or_default()
    }

    async fn on_timer(&self, due: &Timer) -> Result<(), HandlerError> {
        let TimerData { process, timer, by } = serde_json::from_slice(&due.data)?;
        let stream = self.store.repository::<P>().stream(&process)?;
        let set = SetTimers::load(self.store.event_store().as_ref(), &stream).await?;
        let metadata = match &set.newest {
            Some((id, metadata)) => metadata.of_effect(*id),
            None => Metadata::new(),
        };
        let stimulus = Stimulus {
            seen: Seen::Timer(&timer),
            // A reaction that is already committed is repeated all the same, so that all its commands are sent.
            holds: set.get(&timer).is_some_and(|set| set.by.to_string() == by),
            time: due.due,
            key: format!("timer {by} {timer}"),
            metadata,
        };
        // Removes this entry of the index; the reaction may set another.
        let done = ConsumerChange::CancelTimer(due.id.clone());
        self.react(&process, stimulus, Some(done)).await
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
