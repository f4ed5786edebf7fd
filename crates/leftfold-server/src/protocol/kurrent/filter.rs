//! Filters as this wire tells them.
//!
//! **Owns:** [`Filter`]: a filter and how often its checkpoints come. **Does not know:** how names are compared.

use leftfold_model::{Query, RecordedEvent, Scope};
use leftfold_proto::event_store::client::streams::read_req::options::{
    FilterOptions,
    filter_options::{Filter as On, Window},
};
use tonic::Status;

use super::status;
use crate::{
    call,
    event_filter::{EventFilter, FilterOn, FilterSpec},
};

/// Default number of events between two checkpoints.
const WINDOW: u32 = 32;

/// A filter of a read, ready to be applied.
#[derive(Debug)]
pub(super) struct Filter {
    filter: EventFilter,
    /// Number of positions between two checkpoints.
    pub(super) checkpoint_every: u64,
}

/// Parses the filter of a request.
pub(super) fn spec(options: FilterOptions) -> Result<FilterSpec, Status> {
    let (on, expression) = match options.filter {
        Some(On::StreamIdentifier(expression)) => (FilterOn::Stream, expression),
        Some(On::EventType(expression)) => (FilterOn::Type, expression),
        None => return Err(status::missing("filter")),
    };
    Ok(FilterSpec {
        on,
        regex: Some(expression.regex).filter(|regex| !regex.is_empty()),
        prefixes: expression.prefix,
    })
}

impl Filter {
    pub(super) async fn from_wire(options: FilterOptions) -> Result<Self, Status> {
        let window = match options.window {
            Some(Window::Max(max)) => max,
            Some(Window::Count(_)) | None => WINDOW,
        };
        let times = options.checkpoint_interval_multiplier.max(1);
        let keep = |bytes| call::keep_while_open(bytes).is_ok();
        let filter = EventFilter::compile(&spec(options)?, keep).await;
        let filter = filter.map_err(status::of_filter)?;
        Ok(Self {
            filter,
            checkpoint_every: u64::from(window.max(1)) * u64::from(times),
        })
    }

    /// Returns for each of these events whether it matches.
    pub(super) async fn passes(&self, events: &[RecordedEvent]) -> Result<Vec<bool>, Status> {
        self.filter.passes(events).await.map_err(status::of_filter)
    }

    /// Returns the matching events.
    pub(super) async fn keep(
        &self,
        events: Vec<RecordedEvent>,
    ) -> Result<Vec<RecordedEvent>, Status> {
        self.filter.keep(events).await.map_err(status::of_filter)
    }

    /// Returns a scope that contains all matching events.
    pub(super) fn scope(&self) -> Scope {
        self.filter.scope()
    }

    /// Returns a query that selects all matching events.
    pub(super) fn query(&self) -> Query {
        self.filter.query()
    }
}
