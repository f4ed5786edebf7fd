//! Filters of the log by stream name or by event type, and secondary indexes.
//!
//! **Owns:** [`FilterSpec`], a filter as data; [`EventFilter`], a filter that is ready to be applied.
//! **Does not know:** wires, reads.
//! **Invariants:** an expression takes a bounded number of steps per event; what takes more is an error, not a mismatch.
//! **Reading order:** [`FilterSpec`], `expression`, [`EventFilter`].

mod expression;

use expression::Expression;
use leftfold_model::{Category, EventType, Query, QueryItem, RecordedEvent, Scope};
use serde::{Deserialize, Serialize};

/// Maximum prefixes of a filter.
pub(crate) const PREFIXES_MAX: usize = 1_024;
/// Maximum characters of an expression or a name in an error.
const SHOWN_CHARS_MAX: usize = 200;

/// The prefix of the names of indexes.
pub(crate) const INDEX_PREFIX: &str = "$idx-";
/// The index of everything but system events.
const INDEX_ALL: &str = "$idx-all";
/// The prefix of the indexes of categories.
const INDEX_CATEGORY: &str = "$idx-ce-";
/// The prefix of the indexes of event types.
const INDEX_TYPE: &str = "$idx-et-";

/// A filter as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSpec {
    /// What is compared.
    pub on: FilterOn,
    /// A regular expression; if there is none, the prefixes count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Beginnings, of which one must fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
}

/// What a filter compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterOn {
    /// The name of the stream.
    Stream,
    /// The type of the event.
    Type,
}

/// Why a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The expression has too many bytes.
    #[error(
        "regular expression of the filter too long: {bytes} bytes; expected {} at most",
        expression::EXPRESSION_BYTES_MAX
    )]
    TooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// The filter has too many prefixes.
    #[error("prefixes of the filter too many: {count}; expected {PREFIXES_MAX} at most")]
    TooManyPrefixes {
        /// How many it has.
        count: usize,
    },
    /// The expression would take too much memory once it is compiled.
    #[error(
        "regular expression of the filter too complex: {expression:?}: {reason}; expected {} bytes once compiled at \
         most, or {} parts of {} bytes if it looks around: repeat less, or use prefixes",
        expression::PLAIN_BYTES_MAX,
        expression::PARTS_MAX,
        expression::PART_BYTES_MAX
    )]
    TooComplex {
        /// Its beginning.
        expression: String,
        /// What the library for expressions says.
        reason: String,
    },
    /// The calls that are open hold the memory that it would take.
    #[error(
        "memory for open calls exhausted (in_flight_bytes_max); expected a smaller expression, or a later attempt"
    )]
    Exhausted,
    /// The expression is none.
    #[error("filter is not a regular expression: {expression:?}: {reason}")]
    Malformed {
        /// Its beginning.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Applying the expression takes too many steps.
    #[error("filter takes too long: {expression:?} on {name:?}: {reason}")]
    TooSlow {
        /// The beginning of the expression.
        expression: String,
        /// The beginning of the name it was applied to.
        name: String,
        /// What the library for expressions says.
        reason: String,
    },
    /// There is no such index.
    #[error("index not found: {name}; expected $idx-all, $idx-ce-CATEGORY or $idx-et-TYPE")]
    UnknownIndex {
        /// The name.
        name: String,
    },
}

/// A filter, ready to be applied.
#[derive(Debug)]
pub(crate) struct EventFilter {
    on: FilterOn,
    by: Pattern,
}

#[derive(Debug)]
enum Pattern {
    Prefixes(Vec<String>),
    Regex(Expression),
    Index(Index),
}

/// An index over the events that are not the system's.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Index {
    All,
    Category(Category),
    Type(EventType),
}

impl Index {
    /// Parses the name of an index.
    fn named(name: &str) -> Result<Self, FilterError> {
        let unknown = || FilterError::UnknownIndex {
            name: shortened(name),
        };
        if name == INDEX_ALL {
            return Ok(Self::All);
        }
        if let Some(category) = name.strip_prefix(INDEX_CATEGORY) {
            return Category::new(category)
                .map(Self::Category)
                .map_err(|_| unknown());
        }
        let event_type = name.strip_prefix(INDEX_TYPE).ok_or_else(unknown)?;
        EventType::new(event_type)
            .map(Self::Type)
            .map_err(|_| unknown())
    }

    fn holds(&self, event: &RecordedEvent) -> bool {
        let (stream, event_type) = (&event.stream, &event.event_type);
        if stream.as_str().starts_with('$') || event_type.as_str().starts_with('$') {
            return false;
        }
        match self {
            Self::All => true,
            Self::Category(category) => stream.category_str() == category.as_str(),
            Self::Type(of) => event_type == of,
        }
    }
}

impl EventFilter {
    /// Makes a filter ready. One prefix that names an index on streams selects that index.
    ///
    /// # Cost
    /// An expression is compiled on the blocking pool, a few at a time. `keep` charges the bytes that it may take, or refuses
    /// them.
    ///
    /// # Errors
    /// [`FilterError`].
    pub(crate) async fn compile(
        spec: &FilterSpec,
        keep: impl FnMut(usize) -> bool,
    ) -> Result<Self, FilterError> {
        let count = spec.prefixes.len();
        if count > PREFIXES_MAX {
            return Err(FilterError::TooManyPrefixes { count });
        }
        let by = match (spec.on, &spec.regex, spec.prefixes.as_slice()) {
            (_, Some(regex), _) => Pattern::Regex(Expression::compile(regex, keep).await?),
            (FilterOn::Stream, None, [name]) if name.starts_with(INDEX_PREFIX) => {
                Pattern::Index(Index::named(name)?)
            }
            (_, None, prefixes) => Pattern::Prefixes(prefixes.to_vec()),
        };
        Ok(Self { on: spec.on, by })
    }

    /// Returns for each of these events whether it matches. What may take long does not hold up other tasks.
    pub(crate) async fn passes(&self, events: &[RecordedEvent]) -> Result<Vec<bool>, FilterError> {
        let name = |event: &RecordedEvent| match self.on {
            FilterOn::Stream => event.stream.as_str().to_owned(),
            FilterOn::Type => event.event_type.as_str().to_owned(),
        };
        let events = events.iter();
        Ok(match &self.by {
            Pattern::Index(index) => events.map(|event| index.holds(event)).collect(),
            Pattern::Prefixes(prefixes) => {
                let begins = |name: &str| prefixes.iter().any(|it| name.starts_with(it.as_str()));
                let passes = |event: &RecordedEvent| match self.on {
                    FilterOn::Stream => begins(event.stream.as_str()),
                    FilterOn::Type => begins(event.event_type.as_str()),
                };
                events.map(passes).collect()
            }
            Pattern::Regex(expression) => expression.match_each(events.map(name).collect()).await?,
        })
    }

    /// Returns the matching events.
    pub(crate) async fn keep(
        &self,
        mut events: Vec<RecordedEvent>,
    ) -> Result<Vec<RecordedEvent>, FilterError> {
        let mut passes = self.passes(&events).await?.into_iter();
        events.retain(|_| passes.next().unwrap_or(false));
        Ok(events)
    }

    /// Returns a scope that contains all matching events.
    pub(crate) fn scope(&self) -> Scope {
        if let Pattern::Index(Index::Category(category)) = &self.by {
            return Scope::Category(category.clone());
        }
        if let (FilterOn::Stream, Pattern::Prefixes(prefixes)) = (self.on, &self.by)
            && let [prefix] = prefixes.as_slice()
            && let Some((category, "")) = prefix.split_once('-')
            && let Ok(category) = Category::new(category)
        {
            return Scope::Category(category);
        }
        Scope::All
    }

    /// Returns a query that selects all matching events.
    pub(crate) fn query(&self) -> Query {
        match &self.by {
            Pattern::Index(Index::Type(event_type)) => QueryItem::types([event_type.clone()])
                .and_then(|item| Query::items([item]))
                .unwrap_or_default(),
            _ => Query::All,
        }
    }
}

/// The beginning of a text: errors travel in headers, of which clients take only so much.
fn shortened(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_filter_with_too_many_prefixes_is_refused() {
        let spec = FilterSpec {
            on: FilterOn::Stream,
            regex: None,
            prefixes: vec!["a".into(); PREFIXES_MAX + 1],
        };
        let refused = EventFilter::compile(&spec, |_| true).await.unwrap_err();
        let count = PREFIXES_MAX + 1;
        assert_eq!(refused, FilterError::TooManyPrefixes { count });
    }

    #[test]
    fn a_prefix_that_is_a_category_narrows_the_scope() {
        let scope = |prefixes: &[&str]| {
            let filter = EventFilter {
                on: FilterOn::Stream,
                by: Pattern::Prefixes(prefixes.iter().map(|&p| p.into()).collect()),
            };
            filter.scope()
        };
        assert_eq!(
            scope(&["account-"]),
            Scope::Category(Category::new("account").unwrap())
        );
        for other in [&["account"][..], &["-"], &["a-b-"], &["a-", "b-"], &[]] {
            assert_eq!(scope(other), Scope::All, "{other:?}");
        }
    }
}
