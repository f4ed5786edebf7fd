//! The simulated disk itself.

use leftfold_log::disk::{Disk, FileKind, FileName, LockError};
use leftfold_sim::{CrashKind, Fault, Op, Rng, SimDisk};

const NAME: FileName = FileName::of(FileKind::Spare);
const OTHER: FileName = FileName::of(FileKind::CleanStop);

fn read(disk: &SimDisk, name: &FileName) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A disk with one durable file that holds `old`.
fn with_file() -> SimDisk {
    let disk = SimDisk::new();
    let file = disk.create(&NAME).unwrap();
    file.write_all_at(b"old", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    disk
}

#[test]
fn what_was_not_synced_is_lost_in_a_power_cut_and_kept_by_a_kill() {
    for (loss, expected) in [
        (CrashKind::All, b"old"),
        (CrashKind::Nothing, b"new"),
        (CrashKind::Killed, b"new"),
    ] {
        let disk = with_file();
        disk.open(&NAME).unwrap().write_all_at(b"new", 0).unwrap();
        disk.restart(loss, &mut Rng::of(1));
        assert_eq!(read(&disk, &NAME), expected, "{loss:?}");
    }
}

#[test]
fn a_failed_sync_forgets_the_bytes_and_the_next_one_succeeds() {
    let disk = with_file();
    let file = disk.open(&NAME).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    disk.fail(Some(Fault::io(Op::Sync, 1)));
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok());
    assert_eq!(read(&disk, &NAME), b"new");
    disk.restart(CrashKind::All, &mut Rng::of(1));
    assert_eq!(read(&disk, &NAME), b"old");
}

#[test]
fn a_name_is_durable_only_after_a_sync_of_the_directory() {
    let disk = with_file();
    let file = disk.create(&OTHER).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    disk.restart(CrashKind::All, &mut Rng::of(1));
    assert!(disk.open(&OTHER).is_err());
    disk.rename(&NAME, &OTHER).unwrap();
    disk.restart(CrashKind::All, &mut Rng::of(1));
    assert!(disk.open(&NAME).is_ok() && disk.open(&OTHER).is_err());
}

#[test]
fn sectors_are_lost_one_by_one() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let disk = with_file();
        disk.open(&NAME)
            .unwrap()
            .write_all_at(&[1; 1_024], 0)
            .unwrap();
        disk.restart(CrashKind::Sectors, &mut Rng::of(seed));
        let bytes = read(&disk, &NAME);
        kinds.insert((bytes.first() == Some(&1), bytes.get(600) == Some(&1)));
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn after_a_crash_nothing_answers_until_the_restart() {
    let disk = with_file();
    let file = disk.open(&NAME).unwrap();
    disk.crash_at(disk.ops() + 1);
    assert!(file.write_all_at(b"new", 0).is_err());
    assert!(disk.is_crashed() && file.size().is_err() && disk.list().is_err());
    disk.restart(CrashKind::Killed, &mut Rng::of(1));
    assert!(file.size().is_err(), "a handle of the old process works");
    assert!(disk.open(&NAME).is_ok());
}

#[test]
fn a_full_disk_refuses_growth_and_takes_overwrites() {
    let disk = with_file();
    disk.set_capacity(Some(4));
    let file = disk.open(&NAME).unwrap();
    assert_eq!(
        file.write_all_at(b"12345", 0).unwrap_err().kind(),
        std::io::ErrorKind::StorageFull
    );
    assert!(file.write_all_at(b"123", 0).is_ok());
}

#[test]
fn a_removed_file_stays_readable_and_a_lock_dies_with_its_process() {
    let disk = with_file();
    let file = disk.open(&NAME).unwrap();
    disk.remove(&NAME).unwrap();
    assert_eq!(file.size().unwrap(), 3);
    let held = disk.lock().unwrap();
    assert!(matches!(disk.lock(), Err(LockError::Held)));
    disk.restart(CrashKind::Killed, &mut Rng::of(1));
    let again = disk.lock().unwrap();
    drop(held);
    assert!(
        matches!(disk.lock(), Err(LockError::Held)),
        "an old guard freed a new lock"
    );
    drop(again);
}
