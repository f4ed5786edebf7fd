//! Random histories.

use std::collections::BTreeMap;

use leftfold_sim::Simulation;

use crate::seeds;

/// Kinds of trouble that every campaign must have met.
const MUST_BE_SEEN: &[&str] = &[
    "crash inside an operation",
    "disk full",
    "failed directory sync",
    "failed listing",
    "failed lock",
    "failed open",
    "failed read",
    "failed sync",
    "failed write",
    "power cut, a prefix kept",
    "power cut, everything unsynced lost",
    "power cut, nothing lost",
    "power cut, sectors lost",
    "process killed",
];

#[test]
fn no_seed_breaks_a_promise_and_every_kind_of_trouble_is_met() {
    let mut seen: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut recoveries, mut appends, mut erased) = (0, 0, 0);
    let (mut in_place, mut decided) = ([0; 2], [0; 3]);
    let seeds = seeds();
    for seed in seeds.clone() {
        let mut run = Simulation::of(seed);
        if let Err(broken) = run.play() {
            panic!("LEFTFOLD_SEED={seed}: {broken}");
        }
        let report = run.report();
        recoveries += report.recoveries;
        appends += report.appends;
        erased += report.erased;
        for (all, of_this) in decided.iter_mut().zip(report.decided) {
            *all += of_this;
        }
        for (all, of_this) in in_place.iter_mut().zip(report.in_place) {
            *all += of_this;
        }
        report
            .seen
            .into_iter()
            .for_each(|(what, times)| *seen.entry(what).or_default() += times);
    }
    let count = seeds.end - seeds.start;
    println!(
        "{count} seeds, {recoveries} recoveries, {appends} appends, {erased} events erased, \
         {decided:?} appends written, repeated and refused, {in_place:?} reads in place and given up, {seen:#?}"
    );
    if count > 100 {
        assert!(erased > count, "{erased} events erased");
        assert!(decided.iter().all(|&n| n > count), "{decided:?}");
        assert!(in_place.iter().all(|&n| n > count), "{in_place:?}");
        for kind in MUST_BE_SEEN {
            assert!(seen.contains_key(kind), "no seed met: {kind}");
        }
    }
}

#[test]
fn the_same_seed_does_the_same_operations_and_leaves_the_same_bytes() {
    for seed in 0..40 {
        let play = || {
            let mut run = Simulation::of(seed);
            run.play().unwrap();
            (run.report().trace, run.disk.contents())
        };
        assert_eq!(play(), play(), "LEFTFOLD_SEED={seed}");
    }
}
