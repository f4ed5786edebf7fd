//! Groups of competing consumers, which share the events of a stream or of the log.
//!
//! **Owns:** definitions of groups, dispatch, retries, parking, checkpoints.
//! **Does not know:** wires; how events are stored.
//! **Invariants:**
//! - A checkpoint never passes an event that is neither acknowledged nor parked.
//! - One owner acts for a group at a time, under a [claim](leftfold_store::consumers::Claim) of its consumer.
//! - Definitions are events of system streams, so each store and each export has them. Checkpoints and parked events are
//!   beside the log: they wake no reader.
//!
//! **Reading order:** `id`, `settings`, `definition`, `catalog`, `message`, `queue`, `strategy`, `source`, `manager`, `holder`,
//! `registry`, `runner`, `running`, `progress`, `parked`.

mod catalog;
mod command;
mod definition;
mod error;
mod filter_memory;
mod group_run;
mod holder;
mod id;
mod invalid;
mod manager;
mod message;
mod parked;
mod progress;
mod queue;
mod registry;
mod runner;
mod running;
mod settings;
mod source;
mod statistics;
mod strategy;

pub use catalog::{GroupCatalog, GroupOverview};
pub use definition::GroupDefinition;
pub use error::GroupError;
pub use id::{GroupId, GroupName, GroupSource};
pub use invalid::InvalidGroup;
pub use parked::{ParkedMessages, Settled};
pub use settings::{ConsumerStrategy, GroupSettings, GroupStart};

pub use crate::event_filter::{FilterError, FilterOn, FilterSpec};

pub(crate) use command::{ConnectionInput, ConsumerInfo, ConsumerStatistics};
pub(crate) use filter_memory::FilterMemory;
pub(crate) use manager::{Connection, GroupManager, GroupState, Membership};
pub(crate) use message::{DeliveredMessage, LinkTarget, Message, NackAction};
