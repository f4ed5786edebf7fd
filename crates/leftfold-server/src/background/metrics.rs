//! Metrics of the server, in the text format of OpenMetrics.
//!
//! **Owns:** [`Metrics`]: names, meanings, and their text form (docs/metrics.md). **Does not know:** which code counts.
//! **Invariants:** a published name keeps its meaning; labels have few values, none of them from clients, and each exists from
//! the start, so that its first increase is visible.
//!
//! Source: the OpenMetrics 1.0 exposition format.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::clock;

/// One label with its value.
pub(crate) type Label = [(&'static str, &'static str); 1];

/// The prefix of each metric that is not one of every process.
const PREFIX: &str = "leftfold";
/// The outcomes of appends.
const OUTCOMES: [&str; 6] = [
    "written",
    "repeated",
    "conflict",
    "invalid",
    "unavailable",
    "unknown",
];
/// The reasons of failed reads.
const REASONS: [&str; 4] = ["deleted", "invalid", "unavailable", "corrupt"];
/// The protocols of requests.
const PROTOCOLS: [&str; 2] = ["grpc", "http"];

/// All metrics of one server.
pub(crate) struct Metrics {
    root: Registry,
    pub(crate) appends: Family<Label, Counter>,
    pub(crate) append_duration: Histogram,
    pub(crate) events_appended: Counter,
    pub(crate) bytes_appended: Counter,
    pub(crate) reads: Counter,
    pub(crate) events_read: Counter,
    pub(crate) subscriptions: Gauge,
    pub(crate) events_delivered: Counter,
    pub(crate) failures: Family<Label, Counter>,
    pub(crate) requests: Family<Label, Counter>,
    pub(crate) connections: Gauge,
    pub(crate) connections_rejected: Counter,
    pub(crate) tls_handshakes_failed: Counter,
    pub(crate) authentications_failed: Counter,
    pub(crate) access_denied: Counter,
    head: Gauge<u64, AtomicU64>,
    scavenge_running: Gauge<i64, AtomicI64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Values that are measured at the time of a scrape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauges {
    /// `None` if the store does not answer; the last value stays.
    pub(crate) head: Option<u64>,
    pub(crate) scavenge_running: bool,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut root = Registry::default();
        let start_time = Gauge::<f64, AtomicU64>::default();
        start_time.set(seconds_since_epoch(clock::now()));
        root.register_with_unit(
            "process_start_time",
            "Start time of the server, since 1970",
            Unit::Seconds,
            start_time,
        );
        let registry = root.sub_registry_with_prefix(PREFIX);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", build);
        // From a tenth of a millisecond to about three seconds.
        let append_duration = Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        let mut metrics = Self {
            append_duration,
            appends: family("outcome", &OUTCOMES),
            events_appended: Counter::default(),
            bytes_appended: Counter::default(),
            reads: Counter::default(),
            events_read: Counter::default(),
            subscriptions: Gauge::default(),
            events_delivered: Counter::default(),
            failures: family("reason", &REASONS),
            requests: family("protocol", &PROTOCOLS),
            connections: Gauge::default(),
            connections_rejected: Counter::default(),
            tls_handshakes_failed: Counter::default(),
            authentications_failed: Counter::default(),
            access_denied: Counter::default(),
            head: Gauge::default(),
            scavenge_running: Gauge::default(),
            root,
        };
        metrics.register_work();
        metrics.register_state();
        metrics
    }

    fn register_work(&mut self) {
        let registry = self.root.sub_registry_with_prefix(PREFIX);
        let appends = self.appends.clone();
        registry.register("appends", "Appends and deletions, by outcome", appends);
        registry.register_with_unit(
            "append_duration",
            "Time from an append to its outcome",
            Unit::Seconds,
            self.append_duration.clone(),
        );
        let events = self.events_appended.clone();
        registry.register("events_appended", "Events written", events);
        registry.register_with_unit(
            "appended",
            "Data and metadata of events written",
            Unit::Bytes,
            self.bytes_appended.clone(),
        );
        registry.register("reads", "Reads begun", self.reads.clone());
        registry.register(
            "events_read",
            "Events given by reads",
            self.events_read.clone(),
        );
        let delivered = self.events_delivered.clone();
        registry.register(
            "events_delivered",
            "Events given to subscriptions",
            delivered,
        );
        let failures = self.failures.clone();
        registry.register(
            "read_failures",
            "Reads and subscriptions that failed, by reason",
            failures,
        );
        registry.register("requests", "Requests, by protocol", self.requests.clone());
    }

    fn register_state(&mut self) {
        let registry = self.root.sub_registry_with_prefix(PREFIX);
        registry.register(
            "subscriptions",
            "Subscriptions that are open",
            self.subscriptions.clone(),
        );
        registry.register(
            "connections",
            "Connections that are open",
            self.connections.clone(),
        );
        registry.register(
            "connections_rejected",
            "Connections closed because there were too many",
            self.connections_rejected.clone(),
        );
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed or timed out",
            self.tls_handshakes_failed.clone(),
        );
        registry.register(
            "authentications_failed",
            "Requests rejected because their credentials are missing or wrong",
            self.authentications_failed.clone(),
        );
        registry.register(
            "access_denied",
            "Requests rejected because the rights of their principal do not suffice",
            self.access_denied.clone(),
        );
        registry.register(
            "head_position",
            "Position of the last event",
            self.head.clone(),
        );
        registry.register(
            "scavenge_running",
            "1 while a scavenge runs",
            self.scavenge_running.clone(),
        );
    }

    /// Encodes all metrics as text.
    pub(crate) fn text(&self, moment: Gauges) -> Result<String, fmt::Error> {
        if let Some(head) = moment.head {
            self.head.set(head);
        }
        self.scavenge_running.set(moment.scavenge_running.into());
        let mut out = String::new();
        text::encode(&mut out, &self.root)?;
        Ok(out)
    }
}

fn seconds_since_epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Counters that differ by the value of a label, all at 0.
fn family(label: &'static str, values: &[&'static str]) -> Family<Label, Counter> {
    let family = Family::<Label, Counter>::default();
    for value in values {
        drop(family.get_or_create(&[(label, value)]));
    }
    family
}
