//! The history of an aggregate: what each event changed.
//!
//! **Owns:** [`HistoryStep`], [`FieldChange`], and comparing states field by field. **Does not know:** how states are stored.
//! **Invariants:** the states are those of the fold that commands decide on; nothing is stored; one state is in memory at a
//! time, however long the stream is.

use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use leftfold_model::{EventId, EventType, Position, Revision, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Aggregate, AsOf, EventContext, LoadError, Metadata, Recorded, Repository,
    load::{fold, read_whole, typed},
};

/// One event of an aggregate, with the state before and after it as JSON.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HistoryStep<E> {
    /// The event's place in its stream.
    pub revision: Revision,
    /// Its place in the log.
    pub position: Position,
    /// Its identity.
    pub id: EventId,
    /// When it was committed.
    pub time: Timestamp,
    /// Its type, as stored.
    pub event_type: EventType,
    /// Why it was written: correlation, cause, actor.
    pub metadata: Metadata,
    /// What it is to the program today: one value, unless upcasters drop or split it.
    pub values: Vec<Recorded<E>>,
    /// The state before it.
    pub before: Value,
    /// The state after it.
    pub after: Value,
    /// The fields that differ.
    pub changes: Vec<FieldChange>,
}

/// A field that differs between two states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// The field, as a JSON pointer (RFC 6901): `/owner/name`, `/items/0`; empty for the state itself.
    pub field: String,
    /// Its value before; `None` if it was not there.
    pub before: Option<Value>,
    /// Its value after; `None` if it is not there.
    pub after: Option<Value>,
}

/// Why the history of an aggregate could not be told.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The aggregate could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The state has no form in JSON, for example a map whose keys are not text.
    #[error("state cannot be written as JSON: {reason}")]
    State {
        /// What the serializer said.
        reason: String,
    },
}

impl<A: Aggregate + Serialize> Repository<A> {
    /// Tells what each event of an aggregate changed, the oldest first.
    ///
    /// ```
    /// # use futures_util::TryStreamExt;
    /// # use leftfold::{Aggregate, Event, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # enum AccountEvent { #[event("DepositMade")] DepositMade { amount: u64 } }
    /// # #[derive(Default, Serialize)]
    /// # struct Account { balance: u64, deposits: u64 }
    /// # impl Aggregate for Account {
    /// #     const CATEGORY: &'static str = "account";
    /// #     type Event = AccountEvent;
    /// #     fn apply(&mut self, event: &AccountEvent) {
    /// #         let AccountEvent::DepositMade { amount } = event;
    /// #         (self.balance, self.deposits) = (self.balance + amount, self.deposits + 1);
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let accounts = Store::memory().repository::<Account>();
    /// # for amount in [100, 0] {
    /// #     accounts.execute("ann", |_| Ok::<_, String>(AccountEvent::DepositMade { amount })).await?;
    /// # }
    /// let steps: Vec<_> = accounts.history("ann").try_collect().await?;
    /// let fields = |nth: usize| -> Vec<_> { steps[nth].changes.iter().map(|c| c.field.as_str()).collect() };
    /// assert_eq!(fields(0), ["/balance", "/deposits"]);
    /// assert_eq!(fields(1), ["/deposits"]); // a deposit of nothing
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Each item may be a [`HistoryError`], which ends the stream. [`LoadError::Truncated`]: the stream does not show all events
    /// since its beginning or its newest deletion, so the states would be wrong.
    /// # Cost
    /// Reads the whole stream, without snapshots, and serializes the state after each event.
    pub fn history(
        &self,
        id: &str,
    ) -> BoxStream<'static, Result<HistoryStep<A::Event>, HistoryError>> {
        let begin = self
            .stream(id)
            .map_err(HistoryError::from)
            .and_then(|stream| Ok((stream, json(&A::default())?)));
        let (stream, empty) = match begin {
            Ok(begin) => begin,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let events = stream::once(read_whole(self.shared_store(), stream))
            .try_flatten()
            .map_err(HistoryError::Load)
            .boxed();
        let begin = (events, A::default(), empty);
        stream::try_unfold(begin, |(mut events, mut state, before)| async move {
            let Some(stored) = events.try_next().await? else {
                return Ok(None);
            };
            let context = EventContext::of(&stored);
            fold::<A::Event>(&stored, &mut |event| {
                state.apply_with_context(event, &context)
            })?;
            let after = json(&state)?;
            let step = HistoryStep {
                revision: stored.revision,
                position: stored.position,
                id: stored.id,
                time: stored.time,
                metadata: Metadata::of(&stored),
                values: typed::<A::Event>(&stored)?,
                event_type: stored.event_type,
                changes: diff(&before, &after),
                before,
                after: after.clone(),
            };
            Ok(Some((step, (events, state, after))))
        })
        .boxed()
    }

    /// Tells which fields differ between two moments in the life of an aggregate.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn diff(
        &self,
        id: &str,
        from: impl Into<AsOf> + Send,
        to: impl Into<AsOf> + Send,
    ) -> Result<Vec<FieldChange>, HistoryError> {
        let (from, to) = (from.into(), to.into());
        let before = json(self.load_at(id, from).await?.state())?;
        let after = json(self.load_at(id, to).await?.state())?;
        Ok(diff(&before, &after))
    }

    /// Finds the event that last changed a field, or anything within it; `None` if no event did. The field is a JSON
    /// pointer, as in [`FieldChange::field`].
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn last_change(
        &self,
        id: &str,
        field: &str,
    ) -> Result<Option<HistoryStep<A::Event>>, HistoryError> {
        let mut found = None;
        let mut steps = self.history(id);
        while let Some(step) = steps.try_next().await? {
            if step.before.pointer(field) != step.after.pointer(field) {
                found = Some(step);
            }
        }
        Ok(found)
    }
}

fn json<A: Serialize>(state: &A) -> Result<Value, HistoryError> {
    serde_json::to_value(state).map_err(|error| HistoryError::State {
        reason: error.to_string(),
    })
}

/// The fields that differ, in the order of their names.
fn diff(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare("", Some(before), Some(after), &mut changes);
    changes
}

fn compare(
    field: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    changes: &mut Vec<FieldChange>,
) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                // RFC 6901, section 3.
                let escaped = name.replace('~', "~0").replace('/', "~1");
                let field = format!("{field}/{escaped}");
                compare(&field, before.get(name), after.get(name), changes);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for nth in 0..before.len().max(after.len()) {
                let field = format!("{field}/{nth}");
                compare(&field, before.get(nth), after.get(nth), changes);
            }
        }
        (before, after) => changes.push(FieldChange {
            field: field.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_differ_are_found_at_every_depth_by_their_pointers() {
        let before = json!({ "a": { "x/y": 1, "same": [1] }, "gone": null, "list": [1, 2, 3] });
        let after = json!({ "a": { "x/y": 2, "same": [1] }, "list": [1, 5], "new": {} });
        let found = diff(&before, &after);
        let fields: Vec<_> = found.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["/a/x~1y", "/gone", "/list/1", "/list/2", "/new"]);
        for change in &found {
            assert_eq!(before.pointer(&change.field), change.before.as_ref());
            assert_eq!(after.pointer(&change.field), change.after.as_ref());
        }
        assert!(diff(&after, &after).is_empty());
        let whole = diff(&json!(1), &json!({}));
        assert_eq!(whole[0].field, "");
    }
}
