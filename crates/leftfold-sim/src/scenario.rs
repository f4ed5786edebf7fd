//! Scripted histories, with a crash in each of their disk operations.
//!
//! **Owns:** the scripts, and [`crash_at_every_op`]: every crash point of a script with every kind of loss.
//! **Does not know:** seeds.
//! **Invariants:** a script performs equal operations in each run until the crash, so crash point N is one place.

use leftfold_log::ScavengeOptions;

use crate::{CrashKind, Fault, Simulation, Violation, disk::Op};

/// A script.
pub type Script = fn(&mut Simulation) -> Result<(), Violation>;

/// All scripts, by name.
pub const ALL: &[(&str, Script)] = &[
    ("one append", one_append),
    ("a group of appends", a_group),
    ("appends to several streams", several_streams),
    ("small appends over several segments", several_segments),
    ("an append larger than a segment", large_append),
    ("close and reopen", close_and_reopen),
    ("reopen without close", reopen_without_close),
    ("maintenance of several segments", maintenance),
    ("disk full and freed", disk_full),
    ("disk full when a segment's name is synced", full_at_roll),
    ("failed sync, restart, power cut", failed_sync),
    ("power cut twice", power_cut_twice),
    ("repeated appends over restarts", repeated_appends),
    ("scavenge of several segments", scavenge),
    ("scavenge, part by part, between appends", scavenge_in_parts),
    ("scavenge with failed syncs", scavenge_with_failed_syncs),
];

fn one_append(run: &mut Simulation) -> Result<(), Violation> {
    let append = run.request(1, 1, 20);
    run.commit(&[append])
}

fn a_group(run: &mut Simulation) -> Result<(), Violation> {
    let group = [
        run.request(1, 1, 20),
        run.request(1, 3, 300),
        run.request(1, 1, 600),
    ];
    run.commit(&group)?;
    let group = [run.request(1, 1, 20), run.request(1, 1, 20)];
    run.commit(&group)
}

fn several_streams(run: &mut Simulation) -> Result<(), Violation> {
    for _ in 0..3 {
        let append = run.request(3, 2, 100);
        run.commit(&[append])?;
    }
    Ok(())
}

fn several_segments(run: &mut Simulation) -> Result<(), Violation> {
    for _ in 0..9 {
        let group = [run.request(1, 4, 50), run.request(1, 4, 50)];
        run.commit(&group)?;
    }
    Ok(())
}

fn large_append(run: &mut Simulation) -> Result<(), Violation> {
    let group = [
        run.request(1, 1, 10),
        run.request(1, 1, 20_000),
        run.request(1, 1, 10),
    ];
    run.commit(&group)
}

fn close_and_reopen(run: &mut Simulation) -> Result<(), Violation> {
    for _ in 0..3 {
        let append = run.request(1, 2, 100);
        run.commit(&[append])?;
        run.close()?;
        if run.disk.is_crashed() {
            return Ok(());
        }
    }
    Ok(())
}

fn reopen_without_close(run: &mut Simulation) -> Result<(), Violation> {
    for _ in 0..3 {
        let append = run.request(1, 2, 100);
        run.commit(&[append])?;
        if run.disk.is_crashed() {
            return Ok(());
        }
        run.restart(CrashKind::Killed);
    }
    run.open()
}

fn maintenance(run: &mut Simulation) -> Result<(), Violation> {
    for _ in 0..12 {
        let group = [run.request(1, 12, 30), run.request(2, 6, 30)];
        run.commit(&group)?;
        run.maintain(4)?;
    }
    Ok(())
}

fn disk_full(run: &mut Simulation) -> Result<(), Violation> {
    let append = run.request(1, 2, 1_000);
    run.commit(&[append])?;
    run.disk.set_capacity(Some(6_000));
    for _ in 0..4 {
        let append = run.request(1, 2, 1_000);
        run.commit(&[append])?;
    }
    run.disk.set_capacity(None);
    let append = run.request(1, 2, 1_000);
    run.commit(&[append])
}

fn full_at_roll(run: &mut Simulation) -> Result<(), Violation> {
    let append = run.request(1, 20, 50);
    run.commit(&[append])?;
    run.disk.fail(Some(Fault::full(Op::SyncDir, 1)));
    let append = run.request(1, 20, 50);
    run.commit(&[append])?;
    run.disk.fail(None);
    for _ in 0..2 {
        let append = run.request(1, 2, 50);
        run.commit(&[append])?;
    }
    Ok(())
}

fn failed_sync(run: &mut Simulation) -> Result<(), Violation> {
    let append = run.request(1, 1, 100);
    run.commit(&[append])?;
    run.disk.fail(Some(Fault::io(Op::Sync, 1)));
    let append = run.request(1, 1, 100);
    run.commit(&[append])?;
    if run.disk.is_crashed() {
        return Ok(());
    }
    run.restart(CrashKind::Killed);
    let append = run.request(1, 1, 100);
    run.commit(&[append])?;
    if run.disk.is_crashed() {
        return Ok(());
    }
    run.restart(CrashKind::All);
    run.open()
}

fn power_cut_twice(run: &mut Simulation) -> Result<(), Violation> {
    for loss in [CrashKind::Sectors, CrashKind::All] {
        let group = [run.request(1, 2, 700), run.request(1, 1, 40)];
        run.commit(&group)?;
        if run.disk.is_crashed() {
            return Ok(());
        }
        run.restart(loss);
    }
    run.open()
}

fn repeated_appends(run: &mut Simulation) -> Result<(), Violation> {
    for loss in [CrashKind::All, CrashKind::Killed] {
        let append = run.request(2, 2, 60);
        run.commit(&[append])?;
        run.repeat()?;
        if run.disk.is_crashed() {
            return Ok(());
        }
        run.restart(loss);
        run.repeat()?;
    }
    Ok(())
}

/// Fills three segments and a bit.
fn fill(run: &mut Simulation) -> Result<(), Violation> {
    for _ in 0..3 {
        let group = [run.request(4, 3, 90), run.request(4, 3, 10)];
        run.commit(&group)?;
    }
    run.maintain(20)
}

fn scavenge(run: &mut Simulation) -> Result<(), Violation> {
    fill(run)?;
    let truncations = [Simulation::truncation(0, 7), Simulation::truncation(3, 100)];
    let options = ScavengeOptions::default().with_seal_newest();
    run.scavenge(&truncations, options, u64::MAX)?;
    if run.disk.is_crashed() {
        return Ok(());
    }
    run.close()
}

fn scavenge_in_parts(run: &mut Simulation) -> Result<(), Violation> {
    fill(run)?;
    for before in [4, 9, 9, 20] {
        let truncations = [
            Simulation::truncation(1, before),
            Simulation::truncation(2, before),
        ];
        run.scavenge(&truncations, ScavengeOptions::default(), 1)?;
        let append = run.request(2, 2, 60);
        run.commit(&[append])?;
        run.repeat()?;
    }
    run.maintain(20)
}

fn scavenge_with_failed_syncs(run: &mut Simulation) -> Result<(), Violation> {
    fill(run)?;
    for (op, nth) in [
        (Op::Sync, 1),
        (Op::Sync, 2),
        (Op::SyncDir, 1),
        (Op::SyncDir, 2),
    ] {
        run.disk.fail(Some(Fault::io(op, nth)));
        run.scavenge(
            &[Simulation::truncation(0, 100)],
            ScavengeOptions::default(),
            u64::MAX,
        )?;
        run.disk.fail(None);
        let append = run.request(1, 1, 60);
        run.commit(&[append])?;
    }
    run.finish_scavenging()
}

/// Plays a script with a crash in each of its operations in turn, for one kind of loss; returns the number of crash points.
///
/// After the crash, the run recovers the log, retries appends of unknown outcome, finishes a scavenge that had begun, and
/// leaves the rest of the script out. With `again`, the recovery crashes too, after that many operations.
///
/// # Errors
/// [`Violation`], with the crash point.
pub fn crash_at_every_op(
    script: Script,
    loss: CrashKind,
    again: Option<u64>,
) -> Result<u64, Violation> {
    for point in 1.. {
        let mut run = Simulation::of(point);
        run.disk.crash_at(point);
        let at = |broken: Violation| {
            Violation(format!(
                "crash in operation {point}, {loss:?}, again {again:?}: {broken}"
            ))
        };
        script(&mut run).map_err(at)?;
        let crashed = run.disk.is_crashed();
        if !crashed && run.disk.ops() < point {
            return Ok(point - 1);
        }
        run.disk.set_capacity(None);
        run.restart(loss);
        if let Some(again) = again {
            run.disk.crash_at(run.disk.ops() + again);
        }
        let recovered = run.open().and_then(|()| run.retry_unknown());
        recovered
            .and_then(|()| run.finish_scavenging())
            .map_err(at)?;
        run.restart(CrashKind::All);
        run.open().and_then(|()| run.check()).map_err(at)?;
        run.verify().map_err(at)?;
    }
    Ok(0)
}
