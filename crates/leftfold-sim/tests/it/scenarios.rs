//! Scripts, stopped in every operation.

use leftfold_sim::{
    CrashKind,
    scenario::{ALL, crash_at_every_op},
};

#[test]
fn a_crash_in_any_operation_of_any_script_loses_nothing_acknowledged() {
    let mut points = 0;
    for (name, script) in ALL {
        for loss in CrashKind::EVERY {
            points += crash_at_every_op(*script, loss, None)
                .unwrap_or_else(|broken| panic!("{name}: {broken}"));
        }
    }
    println!("{points} crash points");
    assert!(points > 1_000);
}

#[test]
fn a_second_crash_inside_the_recovery_loses_nothing_either() {
    let mut points = 0;
    for (name, script) in ALL.iter().filter(|(name, _)| !name.contains("segments")) {
        for loss in [CrashKind::All, CrashKind::Sectors, CrashKind::Killed] {
            for again in [1, 2, 3, 4, 5, 7, 9, 12] {
                let done = crash_at_every_op(*script, loss, Some(again));
                points += done.unwrap_or_else(|broken| panic!("{name}: {broken}"));
            }
        }
    }
    println!("{points} pairs of crash points");
}
