//! Committing a reaction, once.
//!
//! **Owns:** [`React`], the command by which a process reacts. **Does not know:** who carries out commands, when timers are due.
//! **Invariants:** a reaction is decided on the state before it; one that was committed before is decided again on that same
//! state, and not committed again.

use leftfold_model::{Append, Appended, EventId, RecordedEvent, Revision, StreamName, Timestamp};

use super::{
    definition::Process,
    reaction::{Reaction, Seen},
    timers::TimerChanges,
};
use crate::{
    Aggregate, ExecuteError, LoadError, Metadata, Repository,
    command::{Command, CommandContext, IdempotencyKey, Proposal},
};

/// A reaction, and what is known of its place in the log.
pub(super) struct Reacted<P: Process> {
    pub(super) reaction: Reaction<P::Event, P::Command>,
    pub(super) timers: TimerChanges,
    /// The first event it remembered; `None` if it ignored what it saw.
    pub(super) event: Option<EventId>,
    /// It was committed before.
    pub(super) repeated: bool,
}

/// What a process reacts to, and under which name that is known.
pub(super) struct Stimulus<'a, P: Process> {
    pub(super) seen: Seen<'a, P::Sees>,
    /// Whether it still holds: a timer may have been cancelled or moved.
    pub(super) holds: bool,
    pub(super) time: Timestamp,
    /// The same for each repetition.
    pub(super) key: String,
    pub(super) metadata: Metadata,
}

impl<P: Process> Stimulus<'_, P> {
    /// Reacts on a state.
    fn decide(&self, state: &P) -> (Reaction<P::Event, P::Command>, TimerChanges) {
        let reaction = state.react(self.seen);
        let mut timers = TimerChanges::default();
        if reaction.is_ignored() {
            return (reaction, timers);
        }
        if let Seen::Timer(name) = self.seen {
            timers.insert(name.to_owned(), None);
        }
        for (name, when) in &reaction.timers {
            timers.insert(name.clone(), when.map(|when| when.time(self.time)));
        }
        (reaction, timers)
    }
}

/// What a process decided: its reaction, and the timers after it.
type Decided<P> = (
    Reaction<<P as Aggregate>::Event, <P as Process>::Command>,
    TimerChanges,
);

/// The command by which a process reacts.
struct React<'a, P: Process> {
    context: &'a CommandContext,
    repository: &'a Repository<P>,
    stream: &'a StreamName,
    stimulus: &'a Stimulus<'a, P>,
    decided: Option<Decided<P>>,
}

/// How a reaction ended.
enum Ended<P: Process> {
    Now(Reacted<P>),
    /// Committed before, with these first and last events.
    Before(EventId, Revision),
}

impl<P: Process> Command for React<'_, P> {
    type Refusal = std::convert::Infallible;
    type Output = Ended<P>;

    async fn propose(
        &mut self,
        key: Option<&IdempotencyKey>,
        _: u32,
    ) -> Result<Proposal, ExecuteError<Self::Refusal>> {
        if !self.stimulus.holds {
            return Ok(Proposal::default());
        }
        let loaded = self.repository.load_stream(self.stream).await?;
        let (reaction, timers) = self.stimulus.decide(loaded.state());
        let metadata = timers.write(self.stimulus.metadata.clone());
        let context = self.context.with_metadata(metadata);
        let mut proposal = Proposal::default();
        if !reaction.is_ignored() {
            let events = context.events(&reaction.events, key, 0)?;
            proposal.add(loaded.ground(self.stream), events);
        }
        self.decided = Some((reaction, timers));
        Ok(proposal)
    }

    fn finish(&mut self, append: Option<(&Append, Appended)>, _: u32) -> Ended<P> {
        let decided = self.decided.take();
        let (reaction, timers) =
            decided.unwrap_or_else(|| (Reaction::ignore(), TimerChanges::default()));
        let event = append.and_then(|(append, _)| append.events().next().map(|event| event.id()));
        Ended::Now(Reacted {
            reaction,
            timers,
            event,
            repeated: false,
        })
    }

    fn repeat(
        &self,
        stored: Vec<RecordedEvent>,
        _: u32,
    ) -> Result<Ended<P>, ExecuteError<Self::Refusal>> {
        let first = stored.first().map(|event| (event.id, event.revision));
        let (id, revision) = first.unwrap_or((EventId::fresh(), Revision::FIRST));
        Ok(Ended::Before(id, revision))
    }
}

/// Lets a process react, and commits what it decides unless that was done before.
pub(super) async fn react<P: Process>(
    repository: &Repository<P>,
    context: &CommandContext,
    id: &str,
    stimulus: &Stimulus<'_, P>,
) -> Result<Reacted<P>, ExecuteError<std::convert::Infallible>> {
    let stream = repository.stream(id)?;
    let context = context.with_idempotency_key("react", &stimulus.key);
    let command = React {
        context: &context,
        repository,
        stream: &stream,
        stimulus,
        decided: None,
    };
    let boundary = format!("process {stream}");
    match context.run(&boundary, &stream, command).await? {
        Ended::Now(reacted) => Ok(reacted),
        Ended::Before(event, first) => {
            let state = before(repository, id, first).await?;
            let (reaction, timers) = stimulus.decide(&state);
            Ok(Reacted {
                reaction,
                timers,
                event: Some(event),
                repeated: true,
            })
        }
    }
}

/// The state in front of an event.
async fn before<P: Process>(
    repository: &Repository<P>,
    id: &str,
    revision: Revision,
) -> Result<P, LoadError> {
    let Some(previous) = revision.get().checked_sub(1) else {
        return Ok(P::default());
    };
    let loaded = repository.load_at(id, Revision::new(previous)).await?;
    Ok(loaded.into_state())
}
