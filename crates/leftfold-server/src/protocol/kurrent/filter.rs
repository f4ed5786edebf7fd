//! Filters of $all by stream name or by event type, and indexes.
//!
//! **Owns:** parsing and applying them. **Does not know:** reads.
//! **Invariants:** an expression takes a bounded number of steps per event; exceeding it is an error, not a mismatch.

use fancy_regex::{Regex, RegexBuilder};
use leftfold_model::{Category, EventType, Query, QueryItem, RecordedEvent, Scope};
use leftfold_proto::event_store::client::streams::read_req::options::{
    FilterOptions,
    filter_options::{Expression, Filter as On, Window},
};
use tonic::Status;

use super::status;

/// Maximum backtracking steps of matching one name.
const BACKTRACKS_MAX: usize = 10_000;
/// Maximum bytes of an expression.
const EXPRESSION_BYTES_MAX: usize = 8 * 1024;
/// Maximum characters of an expression or a name in an error.
const SHOWN_CHARS_MAX: usize = 200;
/// Number of events matched before the task yields.
const EVENTS_AT_ONCE: usize = 16;
/// Default number of events between two checkpoints.
const WINDOW: u32 = 32;

/// The prefix of the names of indexes.
pub(super) const INDEX_PREFIX: &str = "$idx-";
/// The index of everything but system events.
const INDEX_ALL: &str = "$idx-all";
/// The prefix of the indexes of categories.
const INDEX_CATEGORY: &str = "$idx-ce-";
/// The prefix of the indexes of event types.
const INDEX_TYPE: &str = "$idx-et-";

/// A filter, ready to be applied.
#[derive(Debug)]
pub(super) struct Filter {
    on: Property,
    by: Pattern,
    /// Number of positions between two checkpoints.
    pub(super) checkpoint_every: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Stream,
    Type,
}

#[derive(Debug)]
enum Pattern {
    Prefixes(Vec<String>),
    Regex(Box<Regex>),
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
    fn named(name: &str) -> Result<Self, Status> {
        let unknown = || status::index_not_found(name);
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

impl Filter {
    pub(super) fn from_wire(options: FilterOptions) -> Result<Self, Status> {
        let (on, expression) = match options.filter {
            Some(On::StreamIdentifier(expression)) => (Property::Stream, expression),
            Some(On::EventType(expression)) => (Property::Type, expression),
            None => return Err(status::missing("filter")),
        };
        let window = match options.window {
            Some(Window::Max(max)) => max,
            Some(Window::Count(_)) | None => WINDOW,
        };
        let times = options.checkpoint_interval_multiplier.max(1);
        // Clients read an index as streams that begin with its name.
        let by = match (on, expression.regex.as_str(), expression.prefix.as_slice()) {
            (Property::Stream, "", [name]) if name.starts_with(INDEX_PREFIX) => {
                Pattern::Index(Index::named(name)?)
            }
            _ => Pattern::from_wire(expression)?,
        };
        Ok(Self {
            on,
            by,
            checkpoint_every: u64::from(window.max(1)) * u64::from(times),
        })
    }

    /// Returns whether the event matches.
    pub(super) fn passes(&self, event: &RecordedEvent) -> Result<bool, Status> {
        let name = match self.on {
            Property::Stream => event.stream.as_str(),
            Property::Type => event.event_type.as_str(),
        };
        match &self.by {
            Pattern::Index(index) => Ok(index.holds(event)),
            by => by.matches(name),
        }
    }

    /// Returns the matching events; yields to other tasks in between.
    pub(super) async fn keep(
        &self,
        mut events: Vec<RecordedEvent>,
    ) -> Result<Vec<RecordedEvent>, Status> {
        let mut passes = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            self.pause(index).await;
            passes.push(self.passes(event)?);
        }
        let mut passes = passes.into_iter();
        events.retain(|_| passes.next().unwrap_or(false));
        Ok(events)
    }

    /// Yields to other tasks before the nth event in a row, if matching may take long.
    pub(super) async fn pause(&self, nth: usize) {
        if matches!(self.by, Pattern::Regex(_)) && nth % EVENTS_AT_ONCE == EVENTS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns a scope that contains all matching events.
    pub(super) fn scope(&self) -> Scope {
        if let Pattern::Index(Index::Category(category)) = &self.by {
            return Scope::Category(category.clone());
        }
        if let (Property::Stream, Pattern::Prefixes(prefixes)) = (self.on, &self.by)
            && let [prefix] = prefixes.as_slice()
            && let Some((category, "")) = prefix.split_once('-')
            && let Ok(category) = Category::new(category)
        {
            return Scope::Category(category);
        }
        Scope::All
    }

    /// Returns a query that selects all matching events.
    pub(super) fn query(&self) -> Query {
        match &self.by {
            Pattern::Index(Index::Type(event_type)) => QueryItem::types([event_type.clone()])
                .and_then(|item| Query::items([item]))
                .unwrap_or_default(),
            _ => Query::All,
        }
    }
}

impl Pattern {
    fn from_wire(expression: Expression) -> Result<Self, Status> {
        if expression.regex.is_empty() {
            return Ok(Self::Prefixes(expression.prefix));
        }
        let length = expression.regex.len();
        if length > EXPRESSION_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "filter: the regular expression has {length} bytes, allowed are {EXPRESSION_BYTES_MAX}"
            )));
        }
        let regex = RegexBuilder::new(&expression.regex)
            .backtrack_limit(BACKTRACKS_MAX)
            .build();
        match regex {
            Ok(regex) => Ok(Self::Regex(Box::new(regex))),
            Err(error) => Err(Status::invalid_argument(format!(
                "filter: {:?} is not a regular expression: {}",
                shortened(&expression.regex),
                shortened(&error.to_string())
            ))),
        }
    }

    fn matches(&self, name: &str) -> Result<bool, Status> {
        match self {
            Self::Prefixes(prefixes) => Ok(prefixes
                .iter()
                .any(|prefix| name.starts_with(prefix.as_str()))),
            Self::Index(_) => Ok(false),
            Self::Regex(regex) => regex.is_match(name).map_err(|error| {
                Status::invalid_argument(format!(
                    "filter: {:?} takes too long on {:?}: {error}",
                    shortened(regex.as_str()),
                    shortened(name)
                ))
            }),
        }
    }
}

/// Shortens a text, because a status travels in headers, whose size clients limit.
fn shortened(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(text: &str) -> Result<Pattern, Status> {
        Pattern::from_wire(Expression {
            regex: text.into(),
            prefix: Vec::new(),
        })
    }

    #[test]
    fn expressions_may_look_ahead() {
        let pattern = regex(r"^(?!(\$.+$|PersistentConfig\d+$))").unwrap();
        assert!(pattern.matches("Deposited").unwrap());
        assert!(!pattern.matches("$metadata").unwrap());
        assert!(!pattern.matches("PersistentConfig1").unwrap());
        assert!(regex(r"^[^\$].*").unwrap().matches("a").unwrap());
    }

    #[test]
    fn an_expression_that_is_none_or_never_ends_is_an_error() {
        assert!(regex("(").is_err());
        assert!(regex(&"a".repeat(9_000)).is_err());
        let slow = regex(r"^(a|b|ab)*(?=c)$").unwrap();
        assert!(slow.matches(&"ab".repeat(400)).is_err());
    }

    #[test]
    fn a_prefix_that_is_a_category_narrows_the_scope() {
        let scope = |prefixes: &[&str]| {
            let filter = Filter {
                on: Property::Stream,
                by: Pattern::Prefixes(prefixes.iter().map(|&p| p.into()).collect()),
                checkpoint_every: 1,
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
