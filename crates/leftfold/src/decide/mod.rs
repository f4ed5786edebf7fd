//! Decisions on any events they need, instead of on one stream.
//!
//! Known as the dynamic consistency boundary: each decision draws its own boundary, independent of streams.
//!
//! **Owns:** [`Decision`]: read once, fold, decide, append under what was read. **Does not know:** any domain, any store.
//! **Invariants:** all models are folded from one read; decided events are appended only if no event within the boundary (or
//! the narrower one given) was committed since.

mod model;

use futures_util::StreamExt;
use leftfold_model::{
    Append, AppendCondition, Appended, ConflictToken, ExpectedRevision, Read, RecordedEvent,
    StreamName,
};

pub use model::{Model, Models};

use crate::{
    Boundary, Committed, EventContext, ExecuteError, IntoDecision, LoadError, Metadata, Store,
    command::{Command, CommandContext, IdempotencyKey, Proposal, repeated},
    load::{Ground, fold},
    stream_queue::Turn,
};

/// A decision on one or more models, configured step by step and run by [`Self::decide`]; made by [`Store::decision`].
///
/// ```
/// use leftfold::{Boundary, Event, ExecuteError, Model, Store};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum SeatEvent {
///     #[event("SeatTaken")]
///     Taken { #[tag("seat")] seat: String },
/// }
///
/// #[derive(Clone)]
/// struct Seat { id: String, taken: bool }
///
/// impl Model for Seat {
///     type Event = SeatEvent;
///
///     fn boundary(&self) -> Boundary {
///         Boundary::tag("seat", &self.id)
///     }
///     fn apply(&mut self, _: &SeatEvent) {
///         self.taken = true;
///     }
/// }
///
/// fn take(seat: &Seat) -> Result<SeatEvent, &'static str> {
///     if seat.taken {
///         return Err("the seat is taken");
///     }
///     Ok(SeatEvent::Taken { seat: seat.id.clone() })
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::memory();
/// let free = Seat { id: "12a".into(), taken: false };
/// let committed = store.decision(free.clone()).with_attempts(3).decide(take).await?;
/// assert_eq!(committed.events.len(), 1);
///
/// let again = store.decision(free).decide(take).await;
/// assert!(matches!(again, Err(ExecuteError::Rejected("the seat is taken"))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Decision<M> {
    models: M,
    context: CommandContext,
    stream: StreamName,
    consistency_boundary: Option<Boundary>,
}

impl<M: Models> Decision<M> {
    pub(crate) fn of(store: Store, models: M) -> Self {
        Self {
            models,
            context: CommandContext::of(store),
            stream: StreamName::default_stream(),
            consistency_boundary: None,
        }
    }

    /// Sets how often the decision is made at most, and at least once. Default: 64.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.context = self.context.with_attempts(attempts);
        self
    }
    /// Sets the metadata of its events.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.context = self.context.with_metadata(metadata);
        self
    }
    /// Sets an idempotency key: a decision of this name, on this boundary, is stored once for this key.
    #[must_use]
    pub fn with_idempotency_key(mut self, command: &str, key: &str) -> Self {
        self.context = self.context.with_idempotency_key(command, key);
        self
    }
    /// Sets the stream of its events. Default: the stream named `default`.
    #[must_use]
    pub fn with_stream(mut self, stream: StreamName) -> Self {
        self.stream = stream;
        self
    }
    /// Sets the boundary whose new events invalidate the decision. Default: all events that the models read.
    ///
    /// Use it when most of the events read cannot invalidate the decision: a deposit never invalidates a withdrawal. The
    /// caller must guarantee that this holds.
    #[must_use]
    pub fn with_consistency_boundary(mut self, boundary: Boundary) -> Self {
        self.consistency_boundary = Some(boundary);
        self
    }

    /// Reads the events of the models, calls `decide` with the folded models, and appends the events it returns, all or
    /// nothing.
    ///
    /// If an event that invalidates the decision was committed in between, this reads again and calls `decide` again. So
    /// `decide` must have no effect but its result. Returning no events is a success.
    ///
    /// # Errors
    /// [`ExecuteError`]; the domain's own error is [`ExecuteError::Rejected`].
    /// # Cancel safety
    /// Dropping the future does not cancel an append that the store has.
    /// # Cost
    /// Reads every event within the boundary, once for each attempt.
    pub async fn decide<D: IntoDecision<M::Event>>(
        &self,
        decide: impl FnMut(&M) -> D + Send,
    ) -> Result<Committed<M::Event>, ExecuteError<D::Refusal>> {
        let boundary = format!("decision {}", boundary_of(&self.models).canonical());
        let command = DecisionCommand {
            decision: self,
            decide,
            events: Vec::new(),
            turns: Vec::new(),
        };
        self.context.run(&boundary, &self.stream, command).await
    }
}

/// A decision in progress.
struct DecisionCommand<'a, M: Models, F> {
    decision: &'a Decision<M>,
    decide: F,
    events: Vec<M::Event>,
    /// Those on what the decision rests on, once others were faster. A first attempt waits for nothing, because most decisions
    /// on the same events do not invalidate each other.
    turns: Vec<Turn>,
}

impl<M, F, D> Command for DecisionCommand<'_, M, F>
where
    M: Models,
    F: FnMut(&M) -> D + Send,
    D: IntoDecision<M::Event>,
{
    type Refusal = D::Refusal;
    type Output = Committed<M::Event>;

    async fn propose(
        &mut self,
        key: Option<&IdempotencyKey>,
        _attempts: u32,
    ) -> Result<Proposal, ExecuteError<D::Refusal>> {
        let Decision {
            models,
            context,
            stream,
            consistency_boundary,
        } = self.decision;
        let (models, mut ground) =
            read_models(&context.store, models, consistency_boundary.as_ref()).await?;
        let decided = (self.decide)(&models).into_decision();
        self.events = decided.map_err(ExecuteError::Rejected)?;
        ground.write = Some((stream.clone(), ExpectedRevision::Any));
        let mut proposal = Proposal::default();
        proposal.add(ground, context.events(&self.events, key, 0)?);
        Ok(proposal)
    }

    async fn take_turn(&mut self) {
        if self.turns.is_empty() {
            let decision = self.decision;
            let parts = match &decision.consistency_boundary {
                Some(boundary) => boundary.parts(),
                None => boundary_of(&decision.models).parts(),
            };
            self.turns = decision.context.store.turns(parts).await;
        }
    }

    fn finish(
        &mut self,
        append: Option<(&Append, Appended)>,
        attempts: u32,
    ) -> Committed<M::Event> {
        let appended = append.map(|(_, appended)| appended);
        let streams = appended
            .as_ref()
            .and_then(|appended| appended.streams.first());
        Committed {
            events: std::mem::take(&mut self.events),
            revision: streams.map(|&(_, revision)| revision),
            position: appended.as_ref().map(|appended| appended.last),
            attempts,
            repeated: appended.is_some_and(|appended| appended.repeated),
        }
    }

    fn repeat(
        &self,
        stored: Vec<RecordedEvent>,
        attempts: u32,
    ) -> Result<Committed<M::Event>, ExecuteError<D::Refusal>> {
        Ok(repeated(&stored, attempts)?)
    }
}

/// Everything the models are folded from.
pub(crate) fn boundary_of(models: &impl Models) -> Boundary {
    let mut boundaries = models.boundaries().into_iter();
    let first = boundaries.next().unwrap_or_default();
    boundaries.fold(first, Boundary::or)
}

/// Folds models from one read, and returns the condition that what was read is still all.
pub(crate) async fn read_models<M: Models>(
    store: &Store,
    models: &M,
    consistency_boundary: Option<&Boundary>,
) -> Result<(M, Ground), LoadError> {
    let boundaries = models.boundaries();
    let boundary = boundary_of(models);
    let query = boundary.query::<M::Event>()?;
    let mut models = models.clone();
    let mut token = ConflictToken::START;
    let mut batches = store.event_store().read(Read::query(query.clone()));
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(LoadError::Store)?;
        token = batch.token;
        for stored in &batch.events {
            let context = EventContext::of(stored);
            fold(stored, &mut |event| {
                models.apply(&boundaries, event, &context);
            })?;
        }
    }
    let query = match consistency_boundary {
        Some(boundary) => boundary.query::<M::Event>()?,
        None => query,
    };
    let ground = Ground {
        conditions: vec![AppendCondition::new(query, token)],
        ..Ground::default()
    };
    Ok((models, ground))
}
