//! Histories with threads, one schedule for each seed.

use leftfold_sim::{ThreadReport, play_threads};

/// As many seeds as take some seconds; a scheduler that switches at random finds an error of the queue in far fewer.
fn seeds() -> std::ops::Range<u64> {
    let seeds = super::seeds();
    seeds.start..seeds.end.min(seeds.start + 4_000)
}

#[test]
fn whatever_thread_runs_next_every_caller_is_answered_and_the_log_explains_each_answer() {
    let mut all = ThreadReport::default();
    for seed in seeds() {
        let report =
            play_threads(seed).unwrap_or_else(|broken| panic!("LEFTFOLD_SEED={seed}: {broken}"));
        all.acknowledged += report.acknowledged;
        all.refused += report.refused;
        all.unknown += report.unknown;
        all.panics += report.panics;
        all.segments = all.segments.max(report.segments);
    }
    println!("{all:?}");
    if seeds().count() > 100 {
        assert!(
            all.acknowledged > 0 && all.refused > 0 && all.unknown > 0,
            "{all:?}"
        );
        assert!(all.panics > 0 && all.segments > 3, "{all:?}");
    }
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..20 {
        let played = || format!("{:?}", play_threads(seed));
        assert_eq!(played(), played(), "seed {seed}");
    }
}

/// In these histories a caller repeats an append of unknown outcome after the disk failed, while another closes the log.
#[test]
fn a_retry_while_a_failed_log_is_being_closed_is_not_said_to_be_certainly_not_written() {
    for seed in [60_008_497, 60_014_279, 60_027_410] {
        play_threads(seed).unwrap_or_else(|broken| panic!("LEFTFOLD_SEED={seed}: {broken}"));
    }
}
