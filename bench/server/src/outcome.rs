//! What came out of a run, and the median of several.
//!
//! **Owns:** the figures of a cell. **Does not know:** how they were measured or are shown.
//! **Invariants:** each figure's median is taken by itself over the runs of one row on one side.

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) operations_per_second: f64,
    pub(crate) events_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) server_cores: f64,
    pub(crate) client_cores: f64,
    pub(crate) resident_mib: f64,
    pub(crate) peak_mib: f64,
}

impl Outcome {
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(runs.iter().map(field).collect());
        Self {
            operations_per_second: of(|run| run.operations_per_second),
            events_per_second: of(|run| run.events_per_second),
            p50_ms: of(|run| run.p50_ms),
            p99_ms: of(|run| run.p99_ms),
            server_cores: of(|run| run.server_cores),
            client_cores: of(|run| run.client_cores),
            resident_mib: of(|run| run.resident_mib),
            peak_mib: of(|run| run.peak_mib),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or(0.0);
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = middle.checked_sub(1).and_then(|lower| values.get(lower));
    lower.map_or(upper, |lower| f64::midpoint(*lower, upper))
}

/// The half and the hundredth of these times, given in nanoseconds, in milliseconds.
pub(crate) fn percentiles(mut nanos: Vec<u64>) -> (f64, f64) {
    nanos.sort_unstable();
    let at = |share: f64| {
        let index = (nanos.len() as f64 * share) as usize;
        let index = index.min(nanos.len().saturating_sub(1));
        nanos
            .get(index)
            .map_or(0.0, |nanos| *nanos as f64 / 1_000_000.0)
    };
    (at(0.5), at(0.99))
}
