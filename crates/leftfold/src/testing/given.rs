//! Tests of aggregates: given events, when a command runs, then a result.
//!
//! **Owns:** [`Given`], [`When`]. **Does not know:** stores.
//! **Invariants:** the state is the fold of the events as they are stored, and nothing else.

use std::fmt::Debug;

use leftfold_model::{ErrorChain, Timestamp};

use super::{
    DecisionResult,
    decision_result::{fail, same},
    stored_with,
};
use crate::{Aggregate, EventContext, IntoDecision, Metadata, load::fold};

/// The events before a command.
///
/// ```
/// use leftfold::{Aggregate, Event, testing::Given};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// # enum AccountEvent {
/// #     #[event("DepositMade")] DepositMade { amount: u64 },
/// #     #[event("WithdrawalMade")] WithdrawalMade { amount: u64 },
/// # }
/// # use AccountEvent::{DepositMade, WithdrawalMade};
/// # #[derive(Default, Debug, PartialEq)]
/// # struct BankAccount { balance: u64 }
/// # impl Aggregate for BankAccount {
/// #     const CATEGORY: &'static str = "account";
/// #     type Event = AccountEvent;
/// #     fn apply(&mut self, event: &AccountEvent) {
/// #         match event {
/// #             DepositMade { amount } => self.balance += amount,
/// #             WithdrawalMade { amount } => self.balance -= amount,
/// #         }
/// #     }
/// # }
/// # impl BankAccount {
/// #     fn withdraw(&self, amount: u64) -> Result<AccountEvent, String> {
/// #         if amount > self.balance { return Err("insufficient funds".into()) }
/// #         Ok(WithdrawalMade { amount })
/// #     }
/// # }
/// Given::<BankAccount>::events([DepositMade { amount: 100 }])
///     .when(|account| account.withdraw(30))
///     .then([WithdrawalMade { amount: 30 }])
///     .then_state(BankAccount { balance: 70 });
/// Given::<BankAccount>::nothing()
///     .when(|account| account.withdraw(30))
///     .then_err("insufficient funds".into());
/// ```
#[derive(Debug)]
pub struct Given<A> {
    state: A,
    events: u64,
    time: Option<Timestamp>,
    metadata: Metadata,
}

impl<A: Aggregate> Given<A> {
    /// Starts with no events.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            state: A::default(),
            events: 0,
            time: None,
            metadata: Metadata::new(),
        }
    }

    /// Starts with these events, in this order.
    ///
    /// # Panics
    /// If one cannot be stored, read again, or applied.
    #[track_caller]
    pub fn events(events: impl IntoIterator<Item = A::Event>) -> Self {
        Self::nothing().and(events)
    }

    /// Adds further events.
    ///
    /// # Panics
    /// As [`Self::events`].
    #[must_use]
    #[track_caller]
    pub fn and(mut self, events: impl IntoIterator<Item = A::Event>) -> Self {
        for event in events {
            self.take(&event);
        }
        self
    }

    /// Sets the time of the events that are added from here on, for states that depend on it.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Sets the metadata of the events that are added from here on, for states that depend on it.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    #[track_caller]
    fn take(&mut self, event: &A::Event) {
        let mut stored = stored_with(event, self.events, &self.metadata);
        stored.time = self.time.unwrap_or(stored.time);
        let context = EventContext::of(&stored);
        let folded = fold(&stored, &mut |event| {
            self.state.apply_with_context(event, &context);
        });
        if let Err(error) = folded {
            fail(&ErrorChain(&error).to_string());
        }
        self.events += 1;
    }

    /// Runs a command on the state.
    #[must_use = "say what is expected: then, then_err, then_nothing, then_state"]
    pub fn when<D: IntoDecision<A::Event>>(
        self,
        decide: impl FnOnce(&A) -> D,
    ) -> When<A, D::Refusal> {
        let outcome = decide(&self.state).into_decision();
        When {
            given: self,
            decided: DecisionResult { outcome },
        }
    }

    /// Asserts the state.
    ///
    /// # Panics
    /// If the state differs.
    #[track_caller]
    pub fn then_state(self, expected: A)
    where
        A: Debug + PartialEq,
    {
        same("state", &expected, &self.state);
    }
}

/// A decided command, to be compared with what is expected.
#[derive(Debug)]
pub struct When<A: Aggregate, E> {
    given: Given<A>,
    decided: DecisionResult<A::Event, E>,
}

impl<A: Aggregate, E: Debug> When<A, E>
where
    A::Event: Debug + PartialEq,
{
    /// Asserts that the command returns exactly these events, in this order.
    ///
    /// # Panics
    /// If it returns others, or an error.
    #[track_caller]
    pub fn then(mut self, expected: impl IntoIterator<Item = A::Event>) -> Self {
        self.decided = self.decided.then(expected);
        self
    }

    /// Asserts that the command returns no events and no error.
    ///
    /// # Panics
    /// If it returns events, or an error.
    #[track_caller]
    pub fn then_nothing(mut self) -> Self {
        self.decided = self.decided.then_nothing();
        self
    }

    /// Asserts that the command is rejected with this error.
    ///
    /// # Panics
    /// If it returns another error, or events.
    #[track_caller]
    pub fn then_err(mut self, expected: E) -> Self
    where
        E: PartialEq,
    {
        self.decided = self.decided.then_err(expected);
        self
    }

    /// Asserts the state after the command, with its events applied.
    ///
    /// # Panics
    /// If the state differs.
    #[track_caller]
    pub fn then_state(self, expected: A)
    where
        A: Debug + PartialEq,
    {
        let events = self.decided.outcome.unwrap_or_default();
        self.given.and(events).then_state(expected);
    }
}
