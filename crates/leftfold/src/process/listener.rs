//! A process as a listener.
//!
//! **Owns:** [`ProcessListener`]: from events and timers to reactions, commands and changes of timers.
//! **Does not know:** how events are handed out. **Invariants:** changes of timers are handed on only behind the reaction that
//! they belong to; a timer that the log does not know to be set is not told of.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Mutex, PoisonError},
};

use leftfold_store::consumers::{ConsumerChange, Timer};

use super::{
    definition::Process,
    handler::{CommandHandler, Sent},
    react::{Reacted, Stimulus, react},
    reaction::Seen,
    timers::{SetTimers, TimerData, timer, timer_id},
};
use crate::{
    Follow, HandlerError, Listener, Metadata, Recorded, Store, command::CommandContext,
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
    /// Sets up a process, and who carries out its commands: see [`Process`].
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
    /// Reacts, carries out what comes of it, and hands on what changes in the index of timers, `first` before all else.
    async fn react(
        &self,
        id: &str,
        stimulus: Stimulus<'_, P>,
        first: Option<ConsumerChange>,
    ) -> Result<(), HandlerError> {
        let repository = self.store.repository::<P>();
        let context = CommandContext::of(self.store.clone());
        let reacted = react(&repository, &context, id, &stimulus).await?;
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
            self.handler.carry_out(command, &sent).await?;
        }
        let mut handed_on = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        handed_on.extend(first.into_iter().chain(changes));
        Ok(())
    }

    /// Says what a reaction changes in the index of timers. Of a reaction that is repeated, what the log says now is written:
    /// a later reaction may have moved or cancelled what it set.
    async fn timer_changes(
        &self,
        stream: &leftfold_model::StreamName,
        id: &str,
        reacted: &Reacted<P>,
    ) -> Result<Vec<ConsumerChange>, HandlerError> {
        let mut names = reacted.timers.names().peekable();
        if names.peek().is_none() {
            return Ok(Vec::new());
        }
        let stored = match reacted.repeated {
            true => Some(SetTimers::load(self.store.event_store().as_ref(), stream).await?),
            false => None,
        };
        let mut changes = Vec::new();
        for name in names {
            let due = match &stored {
                Some(stored) => stored.due(name),
                None => reacted.timers.due(name),
            };
            changes.push(match due {
                Some(due) => ConsumerChange::SetTimer(timer(P::NAME, id, name, due)?),
                None => ConsumerChange::CancelTimer(timer_id(P::NAME, id, name)),
            });
        }
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
        let TimerData { process, timer } = serde_json::from_slice(&due.data)?;
        let stream = self.store.repository::<P>().stream(&process)?;
        let set = SetTimers::load(self.store.event_store().as_ref(), &stream).await?;
        let metadata = match &set.newest {
            Some((id, metadata)) => metadata.of_effect(*id),
            None => Metadata::new(),
        };
        let stimulus = Stimulus {
            seen: Seen::Timer(&timer),
            // One that was reacted to before is recognised all the same, so that its commands are sent to the end.
            holds: set.due(&timer) == Some(due.due),
            time: due.due,
            key: format!("timer {timer} {}", due.due.as_micros()),
            metadata,
        };
        // This entry of the index is done with; the reaction may set another.
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
