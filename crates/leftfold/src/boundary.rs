//! Boundaries: the events that a model is folded from.
//!
//! **Owns:** [`Boundary`], [`BoundaryError`]. **Does not know:** models.
//! **Invariants:** a mistake in a boundary is stored and reported when the boundary is used, so that models can declare theirs
//! without a `Result`; a query made of a boundary also finds the old events that upcasters turn into newer ones.

use std::fmt::Display;

use leftfold_model::{EventType, ModelError, Query, QueryItem, Tag};

use crate::Event;

/// The events that a model is folded from, or those that invalidate a decision.
///
/// ```
/// use leftfold::Boundary;
/// let course = Boundary::tag("course", "c1").of_types(["CourseOpened", "SeatTaken"]);
/// let seat = Boundary::tag("course", "c1").and_tag("student", 7);
/// let either = course.or(seat);
/// let every_invoice = Boundary::types(["InvoiceIssued"]);
/// # let _ = (either, every_invoice);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Boundary {
    items: Vec<Item>,
    wrong: Option<ModelError>,
}

#[derive(Debug, Clone, Default)]
struct Item {
    tags: Vec<Tag>,
    /// Empty: all types of the enum.
    types: Vec<&'static str>,
}

impl Boundary {
    /// Selects events with this tag, of all types of the enum.
    pub fn tag(prefix: &str, value: impl Display) -> Self {
        let all = Self {
            items: vec![Item::default()],
            wrong: None,
        };
        all.and_tag(prefix, value)
    }

    /// Selects events of these types, whatever their tags.
    pub fn types(types: impl IntoIterator<Item = &'static str>) -> Self {
        let all = Self {
            items: vec![Item::default()],
            wrong: None,
        };
        all.of_types(types)
    }

    /// Restricts the boundary to events that also have this tag.
    #[must_use]
    pub fn and_tag(mut self, prefix: &str, value: impl Display) -> Self {
        match Tag::new(format!("{prefix}:{value}")) {
            Ok(tag) => {
                for item in &mut self.items {
                    item.tags.push(tag.clone());
                }
            }
            Err(error) => self.wrong = self.wrong.or(Some(error)),
        }
        self
    }

    /// Restricts the boundary to events of these types.
    #[must_use]
    pub fn of_types(mut self, types: impl IntoIterator<Item = &'static str>) -> Self {
        let types: Vec<_> = types.into_iter().collect();
        for item in &mut self.items {
            item.types.clone_from(&types);
        }
        self
    }

    /// Extends the boundary by another.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self.wrong = self.wrong.or(other.wrong);
        self
    }

    /// Returns a text that is the same for equal boundaries, in every version of the program.
    pub(crate) fn canonical(&self) -> String {
        self.items.iter().map(Item::canonical).collect()
    }

    /// Returns a text for each of its parts. Decisions that share a part can invalidate each other.
    pub(crate) fn parts(&self) -> Vec<String> {
        // No stream that commands wait for begins so, or it costs a wait and nothing else.
        let part = |item: &Item| format!("\0{}", item.canonical());
        self.items.iter().map(part).collect()
    }

    /// Returns whether the boundary contains an event of this type with these tags.
    pub(crate) fn includes(&self, event_type: &str, tags: &[Tag]) -> bool {
        self.items.iter().any(|item| {
            (item.types.is_empty() || item.types.contains(&event_type))
                && item.tags.iter().all(|tag| tags.contains(tag))
        })
    }

    /// Returns the query for the stored events within.
    pub(crate) fn query<V: Event>(&self) -> Result<Query, BoundaryError> {
        if let Some(error) = &self.wrong {
            return Err(BoundaryError::InvalidQuery(error.clone()));
        }
        let known: Vec<_> = V::KINDS.iter().map(|kind| kind.name).collect();
        let old: Vec<_> = V::upcasts()
            .shapes()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let mut items = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let unknown = item.types.iter().find(|name| !known.contains(name));
            if let Some(&name) = unknown {
                return Err(BoundaryError::UnknownType { name, known });
            }
            let types = if item.types.is_empty() {
                &known
            } else {
                &item.types
            };
            let types = types.iter().chain(&old).map(|name| EventType::new(*name));
            let types = types.collect::<Result<Vec<_>, _>>()?;
            items.push(QueryItem::new(types, item.tags.clone())?);
        }
        Ok(Query::items(items)?)
    }
}

impl Item {
    fn canonical(&self) -> String {
        let mut text = format!("[{}", self.types.join(","));
        for tag in &self.tags {
            // Tags may hold any character, so their length stands in front.
            text += &format!(";{}:{tag}", tag.as_str().len());
        }
        text.push(']');
        text
    }
}

/// A boundary is invalid.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BoundaryError {
    /// It names a type of events that the enum does not have.
    #[error("boundary names the type {name:?}, which is none of {known:?}")]
    UnknownType {
        /// The name.
        name: &'static str,
        /// The types of the enum.
        known: Vec<&'static str>,
    },
    /// A tag or the query breaks a limit.
    #[error("boundary breaks a limit")]
    InvalidQuery(#[from] ModelError),
}
