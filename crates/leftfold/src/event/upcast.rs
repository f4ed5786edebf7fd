//! Upcasting: turning old versions of events into newer ones.
//!
//! **Owns:** [`Upcasters`], the table from (name, version) to an upcaster. **Does not know:** enums, stores.
//! **Invariants:** stored events never change: an upcaster gets a copy, as a JSON value, while reading; its results are upcast in
//! turn until the program knows them; a chain that does not end, a failure and a panic are errors.

use std::{collections::HashMap, fmt, panic};

use serde_json::Value;

use super::{EventContext, EventKind};
use crate::error::{Cause, UpcastError};

/// An event of an older version: the input and the result of an upcaster.
#[derive(Debug, Clone, PartialEq)]
pub struct UpcastEvent {
    /// Its type on the wire.
    pub name: String,
    /// The version of its shape.
    pub version: u32,
    /// Its data.
    pub data: Value,
}

impl UpcastEvent {
    /// Creates an event of this type and version with this data.
    pub fn new(name: impl Into<String>, version: u32, data: Value) -> Self {
        Self {
            name: name.into(),
            version,
            data,
        }
    }
}

type Upcast =
    Box<dyn Fn(UpcastEvent, &EventContext<'_>) -> Result<Vec<UpcastEvent>, Cause> + Send + Sync>;

/// The upcasters of an enum's events, by name and version; set by `#[event(upcast = function)]`.
///
/// ```
/// use leftfold::{Event, UpcastEvent, Upcasters};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(upcast = history)]
/// enum AccountEvent {
///     #[event("DepositMade", version = 2)]
///     DepositMade { amount: u64, currency: String },
///     #[event("OwnerNamed")]
///     OwnerNamed { first: String, last: String },
/// }
///
/// fn history() -> Upcasters {
///     Upcasters::new()
///         .rename("MoneyPaidIn", "DepositMade")
///         .change("DepositMade", 1, |data| data["currency"] = "EUR".into())
///         .drop("StatementPrinted", 1)
///         .split("CustomerNamed", 1, |old| {
///             let name = old.data["name"].as_str().ok_or("name is not a text")?;
///             let (first, last) = name.split_once(' ').unwrap_or((name, ""));
///             Ok(vec![UpcastEvent::new("OwnerNamed", 1, serde_json::json!({ "first": first, "last": last }))])
///         })
/// }
/// ```
#[derive(Default)]
pub struct Upcasters {
    by_shape: HashMap<(String, u32), Upcast>,
    /// Why the table is invalid, if it is.
    wrong: Option<String>,
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shapes()).finish()
    }
}

/// Maximum upcasts in a row.
const STEPS_MAX: u32 = 256;

impl Upcasters {
    /// Creates an empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the data of a type from `version` to the next one.
    #[must_use]
    pub fn change(
        self,
        name: &str,
        version: u32,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Self {
        self.split(name, version, move |mut old| {
            change(&mut old.data);
            old.version += 1;
            Ok(vec![old])
        })
    }

    /// Renames version 1 of a type to version 1 of another.
    #[must_use]
    pub fn rename(self, old: &str, new: &str) -> Self {
        let new = new.to_owned();
        self.split(old, 1, move |event| {
            Ok(vec![UpcastEvent::new(new.clone(), 1, event.data)])
        })
    }

    /// Drops events of a type in this version.
    #[must_use]
    pub fn drop(self, name: &str, version: u32) -> Self {
        self.split(name, version, |_| Ok(Vec::new()))
    }

    /// Turns an event of a type in this version into any number of events.
    #[must_use]
    pub fn split(
        self,
        name: &str,
        version: u32,
        split: impl Fn(UpcastEvent) -> Result<Vec<UpcastEvent>, Cause> + Send + Sync + 'static,
    ) -> Self {
        self.split_with_context(name, version, move |old, _| split(old))
    }

    /// Changes the data of a type from `version` to the next one, by what is stored beside the event: a time that the old data
    /// did not name, an actor in the metadata.
    ///
    /// ```
    /// # use leftfold::Upcasters;
    /// Upcasters::new().change_with_context("DepositMade", 1, |data, context| {
    ///     data["actor"] = context.metadata().actor.into();
    ///     data["made"] = context.time().as_micros().into();
    /// });
    /// ```
    #[must_use]
    pub fn change_with_context(
        self,
        name: &str,
        version: u32,
        change: impl Fn(&mut Value, &EventContext<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.split_with_context(name, version, move |mut old, context| {
            change(&mut old.data, context);
            old.version += 1;
            Ok(vec![old])
        })
    }

    /// Turns an event of a type in this version into any number of events, by what is stored beside it.
    #[must_use]
    pub fn split_with_context<F>(mut self, name: &str, version: u32, split: F) -> Self
    where
        F: Fn(UpcastEvent, &EventContext<'_>) -> Result<Vec<UpcastEvent>, Cause>
            + Send
            + Sync
            + 'static,
    {
        let shape = (name.to_owned(), version);
        if self.by_shape.contains_key(&shape) {
            self.wrong
                .get_or_insert(format!("{name} version {version} has two upcasts"));
        }
        self.by_shape.insert(shape, Box::new(split));
        self
    }

    /// Joins the tables of several enums. For derived code.
    #[doc(hidden)]
    #[must_use]
    pub fn joined(tables: impl IntoIterator<Item = &'static Self>) -> Self {
        let mut all = Self::new();
        for table in tables {
            for ((name, version), upcast) in &table.by_shape {
                all = all.split_with_context(name, *version, upcast);
            }
            all.wrong = all.wrong.or_else(|| table.wrong.clone());
        }
        all
    }

    /// Checks the table against the shapes that the program writes. For derived code.
    #[doc(hidden)]
    #[must_use]
    pub fn checked(mut self, kinds: &[EventKind]) -> Self {
        let current = kinds.iter().find(|kind| {
            self.by_shape
                .contains_key(&(kind.name.to_owned(), kind.version))
        });
        if let Some(EventKind { name, version, .. }) = current {
            self.wrong.get_or_insert(format!(
                "{name} version {version} is what the program writes, so it needs no upcast; \
                 if the shape changed, write version = {} above the variant",
                version + 1
            ));
        }
        self
    }

    /// The shapes that are upcast, in order.
    pub(crate) fn shapes(&self) -> Vec<(&str, u32)> {
        let mut shapes: Vec<_> = self
            .by_shape
            .keys()
            .map(|(name, version)| (name.as_str(), *version))
            .collect();
        shapes.sort_unstable();
        shapes
    }

    pub(crate) fn has(&self, name: &str, version: u32) -> bool {
        !self.by_shape.is_empty() && self.by_shape.contains_key(&(name.to_owned(), version))
    }

    /// Checks that the table is valid.
    pub(crate) fn check(&self) -> Result<(), UpcastError> {
        match &self.wrong {
            Some(reason) => Err(UpcastError::Table {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Upcasts an event by one step; `None` if it has no upcaster.
    pub(crate) fn step(
        &self,
        old: UpcastEvent,
        context: &EventContext<'_>,
        steps: &mut u32,
    ) -> Result<Result<Vec<UpcastEvent>, UpcastEvent>, UpcastError> {
        let Some(upcast) = self.by_shape.get(&(old.name.clone(), old.version)) else {
            return Ok(Err(old));
        };
        let (name, version) = (old.name.clone(), old.version);
        *steps += 1;
        if *steps > STEPS_MAX {
            return Err(UpcastError::Endless {
                name,
                version,
                steps: STEPS_MAX,
            });
        }
        match panic::catch_unwind(panic::AssertUnwindSafe(|| upcast(old, context))) {
            Ok(Ok(events)) => Ok(Ok(events)),
            Ok(Err(source)) => Err(UpcastError::Failed {
                name,
                version,
                source,
            }),
            Err(payload) => Err(UpcastError::Panicked {
                name,
                version,
                message: crate::panic_message::message(payload.as_ref()),
            }),
        }
    }
}
