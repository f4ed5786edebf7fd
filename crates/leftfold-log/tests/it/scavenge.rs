//! Scavenging on real files: what goes, what stays, and who notices.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use leftfold_log::{
    AppendError, Log, LogOptions, RECENT_IDS, ScavengeError, ScavengeOptions, ScavengeProgress,
    Truncation, VerifyReport,
    disk::{Disk, real::RealDisk},
    verify,
};
use leftfold_model::{
    Append, AppendCondition, Conflict, Direction, ExpectedRevision, Position, Query, QueryItem,
    Read, RecordedEvent, Revision, Scope, Tag,
};
use tempfile::TempDir;

use crate::story::{append, directory, event, open, read, stream};

use ExpectedRevision::{Any, Exact};

/// Events of the logs below.
const EVENTS: u64 = 600;

/// A log of two dozen segments and three streams, event `n` in stream `s-{n % 3}`.
fn filled(directory: &TempDir) -> Log {
    let log = open(directory);
    for n in 0..EVENTS {
        let name = format!("s-{}", n % 3);
        log.append(append(&name, Any, [n])).unwrap();
    }
    log
}

fn cut(name: &str, before: u64) -> Truncation {
    Truncation {
        stream: stream(name),
        before: Revision::new(before),
    }
}

fn scavenge(log: &Log, cuts: &[Truncation]) -> ScavengeProgress {
    let options = ScavengeOptions::default().with_seal_newest();
    let done = log.scavenge(cuts, options, &mut |_| ControlFlow::Continue(()));
    done.unwrap()
}

fn verified(directory: &Path) -> VerifyReport {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::at(directory).unwrap());
    verify(&disk, &mut |_| {}).unwrap()
}

/// Those of `events` that are not below a revision of a stream.
fn without(events: &[RecordedEvent], name: &str, before: u64) -> Vec<RecordedEvent> {
    let stays = |event: &&RecordedEvent| {
        event.stream != stream(name) || event.revision >= Revision::new(before)
    };
    events.iter().filter(stays).cloned().collect()
}

/// Checks every way to read the log against the events that stay.
#[track_caller]
fn check(log: &Log, stays: &[RecordedEvent]) {
    assert_eq!(read(log, &Read::all()), stays);
    let mut backwards = read(log, &Read::all().backwards());
    backwards.reverse();
    assert_eq!(backwards, stays);
    let tag = || Query::items([QueryItem::tags([Tag::new("n:3").unwrap()]).unwrap()]).unwrap();
    let chosen = |keep: &dyn Fn(&RecordedEvent) -> bool| -> Vec<RecordedEvent> {
        stays.iter().filter(|event| keep(event)).cloned().collect()
    };
    for name in ["s-0", "s-1", "s-2"] {
        let of_stream = chosen(&|event| event.stream == stream(name));
        assert_eq!(read(log, &Read::stream(stream(name))), of_stream);
        let newest = Read::stream(stream(name)).backwards().limit(2);
        let expected: Vec<_> = of_stream.iter().rev().take(2).cloned().collect();
        assert_eq!(read(log, &newest), expected);
        let oldest = Read::stream(stream(name)).limit(3);
        let expected: Vec<_> = of_stream.iter().take(3).cloned().collect();
        assert_eq!(read(log, &oldest), expected);
    }
    let tagged = chosen(&|event| event.tags.contains(&Tag::new("n:3").unwrap()));
    assert_eq!(
        read(
            log,
            &Read {
                query: tag(),
                ..Read::all()
            }
        ),
        tagged
    );
    let mut refs = Vec::new();
    let mut cursor = log.read(&Read::all().limit(200)).unwrap();
    while let Some(batch) = cursor.next_refs().unwrap() {
        assert!(!batch.is_empty());
        refs.extend(batch.iter().map(|event| event.unwrap().position));
    }
    let expected: Vec<_> = stays.iter().take(200).map(|event| event.position).collect();
    assert_eq!(refs, expected);
}

#[test]
fn what_is_cut_is_gone_and_all_else_stays_in_its_place_also_after_reopening() {
    let directory = directory();
    let log = filled(&directory);
    let before = read(&log, &Read::all());
    let bytes = log.stats().log_bytes;
    let done = scavenge(&log, &[cut("s-1", 150)]);
    assert!(done.is_finished() && done.segments_total > 5, "{done:?}");
    assert_eq!(done.events_erased, 150);
    assert_eq!(bytes - log.stats().log_bytes, done.bytes_reclaimed);
    assert!(done.bytes_reclaimed > 150 * 8, "{done:?}");
    assert_eq!((log.stats().events, log.stats().erased), (EVENTS, 150));
    let stays = without(&before, "s-1", 150);
    check(&log, &stays);
    log.close().unwrap();
    drop(log);
    let report = verified(directory.path());
    assert_eq!((report.events, report.erased), (EVENTS, 150));
    let log = open(&directory);
    assert_eq!(log.report().indexes_rebuilt, 0);
    check(&log, &stays);
}

#[test]
fn a_stream_that_is_cut_whole_reads_empty_and_keeps_its_head() {
    let directory = directory();
    let log = filled(&directory);
    scavenge(&log, &[cut("s-0", 50), cut("s-0", u64::MAX)]);
    assert!(read(&log, &Read::stream(stream("s-0"))).is_empty());
    assert!(read(&log, &Read::stream(stream("s-0")).backwards().limit(1)).is_empty());
    let listed = log.streams("s-0", None).unwrap().next_batch(10).unwrap();
    assert_eq!(
        (listed[0].events, listed[0].revision),
        (200, Revision::new(199))
    );
    let refused = log.append(append("s-0", Exact(Revision::new(3)), [9_000]));
    assert!(refused.is_err());
    let appended = log
        .append(append("s-0", Exact(Revision::new(199)), [9_001]))
        .unwrap();
    assert_eq!(appended.streams[0].1, Revision::new(200));
    let left = read(&log, &Read::stream(stream("s-0")));
    assert_eq!((left.len(), left[0].revision), (1, Revision::new(200)));
}

#[test]
fn decisions_do_not_depend_on_what_was_scavenged() {
    let (plain, cut_short) = (directory(), directory());
    let (plain, cut_short) = (filled(&plain), filled(&cut_short));
    scavenge(&cut_short, &[cut("s-2", u64::MAX)]);
    let condition = |after: u64| AppendCondition {
        fail_if_match: Query::items([QueryItem::tags([Tag::new("n:2").unwrap()]).unwrap()])
            .unwrap(),
        after: Position::new(after).into(),
    };
    let conditional = |n, after| {
        let append = append("c", Any, [n]);
        Append::new(append.writes().to_vec(), vec![condition(after)]).unwrap()
    };
    let appends = [
        append("s-2", ExpectedRevision::NoStream, [7_000]),
        append("s-2", ExpectedRevision::StreamExists, [7_001]),
        append("s-2", Exact(Revision::new(200)), [7_002]),
        append("s-2", Any, [2]),
        append("s-2", ExpectedRevision::NoStream, [2]),
        append("s-2", ExpectedRevision::NoStream, [2, 5]),
        append("s-2", ExpectedRevision::NoStream, [2, 6]),
        conditional(7_003, 590),
        conditional(7_004, EVENTS + 2),
    ];
    let mut kinds = [0; 3];
    for append in appends {
        let (a, b) = (plain.append(append.clone()), cut_short.append(append));
        match (&a, &b) {
            (Ok(a), Ok(b)) => {
                assert_eq!(a, b);
                kinds[usize::from(a.repeated)] += 1;
            }
            (Err(AppendError::Conflict(a)), Err(AppendError::Conflict(b))) => {
                assert_eq!(format!("{a:?}"), format!("{b:?}"));
                kinds[2] += 1;
            }
            _ => panic!("{a:?} or {b:?}"),
        }
    }
    assert!(kinds.iter().all(|&n| n >= 2), "{kinds:?}");
}

#[test]
fn a_repeated_append_of_an_erased_event_is_recognised_after_reopening() {
    let directory = directory();
    let log = filled(&directory);
    scavenge(&log, &[cut("s-1", u64::MAX)]);
    log.close().unwrap();
    drop(log);
    let log = open(&directory);
    let again = log.append(append("s-1", Any, [4])).unwrap();
    assert_eq!((again.repeated, again.first), (true, Position::new(5)));
    let partly = log.append(append("s-1", Any, [4, 9_999])).unwrap_err();
    assert!(
        matches!(partly, AppendError::Conflict(Conflict::PartlyStored { .. })),
        "{partly}"
    );
    // Behind the newest ids, what is stored is looked at.
    for n in 0..=RECENT_IDS as u64 / 1_000 {
        let from = 20_000 + n * 1_000;
        log.append(append("filler", Any, from..from + 1_000))
            .unwrap();
    }
    let again = log
        .append(append("s-1", ExpectedRevision::NoStream, [1]))
        .unwrap();
    assert_eq!((again.repeated, again.first), (true, Position::new(2)));
}

#[test]
fn what_lies_in_the_newest_segment_goes_with_a_later_run() {
    let directory = directory();
    let log = open(&directory);
    log.append(append("s-0", Any, 0..10)).unwrap();
    let options = ScavengeOptions::default();
    let cuts = [cut("s-0", 5)];
    let done = log.scavenge(&cuts, options, &mut |_| ControlFlow::Continue(()));
    let done = done.unwrap();
    assert_eq!((done.segments_total, done.through), (0, Position::START));
    assert_eq!(read(&log, &Read::all()).len(), 10);
    let done = scavenge(&log, &cuts);
    assert_eq!((done.events_erased, done.through), (5, Position::new(10)));
    assert_eq!(read(&log, &Read::all()).len(), 5);
    assert_eq!(
        log.append(append("s-0", Any, [10])).unwrap().first,
        Position::new(11)
    );
}

#[test]
fn a_run_that_was_ended_goes_on_where_it_stopped_and_a_done_one_has_nothing_to_do() {
    let directory = directory();
    let mut log = filled(&directory);
    let before = read(&log, &Read::all());
    let cuts = [cut("s-0", 120), cut("s-2", 90)];
    let (mut runs, mut erased, mut left) = (0, 0, u64::MAX);
    while left > 0 {
        let options = ScavengeOptions::default().with_seal_newest();
        let done = log
            .scavenge(&cuts, options, &mut |_| ControlFlow::Break(()))
            .unwrap();
        assert!(
            done.segments_done <= 1 && done.segments_total < left,
            "{done:?}"
        );
        left = done.segments_total;
        erased += done.events_erased;
        runs += 1;
        if runs % 3 == 0 {
            log.close().unwrap();
            drop(log);
            log = open(&directory);
        }
    }
    assert_eq!(erased, 210);
    let stays = without(&without(&before, "s-0", 120), "s-2", 90);
    check(&log, &stays);
    let done = scavenge(&log, &[cut("s-0", 60)]);
    assert_eq!(done.events_erased, 0, "what is erased is not erased again");
    let done = scavenge(&log, &[cut("s-0", 130)]);
    assert_eq!(done.events_erased, 10);
    log.close().unwrap();
    drop(log);
    assert_eq!(verified(directory.path()).erased, 220);
}

#[test]
fn readers_and_followers_that_run_meanwhile_see_all_that_stays_in_order() {
    let directory = directory();
    let log = filled(&directory);
    let before = read(&log, &Read::all());
    let stays = without(&before, "s-1", 190);
    let mut old = log.read(&Read::all()).unwrap();
    let mut begun = log.follow(Scope::All, Query::All, Position::START);
    std::thread::scope(|scope| {
        let reader = |log: Log| {
            let stays = &stays;
            move || {
                for _ in 0..30 {
                    let seen = read(&log, &Read::all());
                    let kept = without(&seen, "s-1", 190);
                    assert_eq!(kept[..stays.len()], stays[..]);
                    assert!(seen.is_sorted_by_key(|event| event.position));
                }
            }
        };
        scope.spawn(reader(log.clone()));
        scope.spawn(reader(log.clone()));
        let follower = log.clone();
        scope.spawn(move || {
            let mut follower = follower.follow(Scope::All, Query::All, Position::START);
            let mut seen = Vec::new();
            while follower.through() < Position::new(EVENTS + 100) {
                seen.extend(follower.wait_next().unwrap().unwrap().events);
            }
            assert!(seen.is_sorted_by(|a, b| a.position < b.position));
            assert!(without(&seen, "s-1", 190).len() as u64 == EVENTS + 100 - 190);
        });
        let writer = log.clone();
        scope.spawn(move || {
            (0..100).for_each(|n| drop(writer.append(append("w", Any, [10_000 + n])).unwrap()));
        });
        for before in (10..=190).step_by(20) {
            scavenge(&log, &[cut("s-1", before)]);
        }
    });
    // A view older than the scavenge goes on, also where the files it knew are gone.
    let mut seen = Vec::new();
    while let Some(batch) = old.next_batch().unwrap() {
        seen.extend(batch);
    }
    assert_eq!(seen, stays);
    let delivered = begun.try_next().unwrap().unwrap();
    assert!(!delivered.events.is_empty());
}

#[test]
fn a_checkpoint_moves_past_erased_events() {
    let directory = directory();
    let log = filled(&directory);
    scavenge(
        &log,
        &[
            cut("s-0", u64::MAX),
            cut("s-1", u64::MAX),
            cut("s-2", u64::MAX),
        ],
    );
    let mut follower = log.follow(Scope::All, Query::All, Position::START);
    let delivered = follower.try_next().unwrap().unwrap();
    assert!(delivered.events.is_empty() && delivered.caught_up);
    assert_eq!(delivered.through, Position::new(EVENTS));
    assert!(follower.try_next().unwrap().is_none());
    assert!(read(&log, &Read::all()).is_empty());
    let newest = Read {
        direction: Direction::Backwards,
        ..Read::all().limit(1)
    };
    assert!(read(&log, &newest).is_empty());
    assert_eq!(log.head(), Position::new(EVENTS));
}

#[test]
fn every_derived_file_can_be_deleted_after_scavenging() {
    let directory = directory();
    let log = filled(&directory);
    scavenge(&log, &[cut("s-1", 150)]);
    let stays = read(&log, &Read::all());
    log.close().unwrap();
    drop(log);
    let mut deleted = 0;
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "idx" || e == "loc") {
            std::fs::remove_file(path).unwrap();
            deleted += 1;
        }
    }
    assert!(deleted > 5);
    let log = open(&directory);
    assert!(log.report().indexes_rebuilt > 5);
    check(&log, &stays);
    let appended = log
        .append(append("s-1", Exact(Revision::new(199)), [8_000]))
        .unwrap();
    assert_eq!(appended.first, Position::new(EVENTS + 1));
    log.close().unwrap();
    drop(log);
    assert_eq!(verified(directory.path()).erased, 150);
}

#[test]
fn only_one_file_of_a_kind_is_left_for_each_segment() {
    let directory = directory();
    let log = filled(&directory);
    for before in [40, 80, 120] {
        scavenge(&log, &[cut("s-1", before)]);
    }
    let segments = log.stats().segments;
    let count = |extension: &str| {
        let files = std::fs::read_dir(directory.path()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths
            .filter(|p| p.extension().is_some_and(|e| e == extension))
            .count() as u64
    };
    assert_eq!(
        (count("seg"), count("loc"), count("tmp")),
        (segments, segments - 1, 0)
    );
}

#[test]
fn segments_that_would_give_back_too_little_are_left_alone() {
    let directory = directory();
    let log = filled(&directory);
    let options = ScavengeOptions::default().with_segment_bytes_min(1_000_000);
    let done = log.scavenge(&[cut("s-1", 150)], options, &mut |_| {
        ControlFlow::Continue(())
    });
    let done = done.unwrap();
    assert!(done.segments_total > 5 && done.is_finished());
    assert_eq!((done.events_erased, log.stats().erased), (0, 0));
}

#[test]
fn closing_ends_a_scavenge_that_takes_its_time() {
    let directory = directory();
    let log = filled(&directory);
    std::thread::scope(|scope| {
        let (begun, wait) = std::sync::mpsc::channel();
        let scavenger = log.clone();
        let ended = scope.spawn(move || {
            let options = ScavengeOptions::default().with_bytes_per_second(20_000);
            scavenger.scavenge(&[cut("s-1", 150)], options, &mut |_| {
                let _ = begun.send(());
                ControlFlow::Continue(())
            })
        });
        wait.recv().unwrap();
        log.close().unwrap();
        assert!(matches!(ended.join().unwrap(), Err(ScavengeError::Closed)));
    });
    let again = log.scavenge(&[cut("s-1", 150)], ScavengeOptions::default(), &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(matches!(again, Err(ScavengeError::Closed)));
    drop(log);
    verified(directory.path());
    let log = open(&directory);
    assert!(log.stats().erased > 0);
    scavenge(&log, &[cut("s-1", 150)]);
    assert_eq!(log.stats().erased, 150);
}

#[test]
fn only_rewritten_segments_are_of_the_newer_format() {
    let directory = directory();
    let log = filled(&directory);
    let formats = || {
        let files = std::fs::read_dir(directory.path()).unwrap();
        let segments = files.map(|f| f.unwrap().path());
        let segments = segments.filter(|p| p.extension().is_some_and(|e| e == "seg"));
        let mut formats: Vec<u8> = segments.map(|p| std::fs::read(p).unwrap()[8]).collect();
        formats.sort_unstable();
        formats.dedup();
        formats
    };
    assert_eq!(formats(), [1]);
    scavenge(&log, &[cut("s-1", 60)]);
    assert_eq!(formats(), [1, 2]);
    assert_eq!(event(1).event_type().as_str(), "T1");
}

#[test]
fn two_scavenges_at_once_erase_each_event_once() {
    let directory = directory();
    let log = filled(&directory);
    let before = read(&log, &Read::all());
    let erased: u64 = std::thread::scope(|scope| {
        let run = |cuts: Vec<Truncation>| {
            let log = log.clone();
            scope.spawn(move || scavenge(&log, &cuts).events_erased)
        };
        let runs = [
            run(vec![cut("s-0", 130)]),
            run(vec![cut("s-0", 130), cut("s-2", 70)]),
            run(vec![cut("s-2", 110)]),
        ];
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert_eq!((erased, log.stats().erased), (240, 240));
    check(&log, &without(&without(&before, "s-0", 130), "s-2", 110));
    assert_eq!(
        scavenge(&log, &[cut("s-0", 130), cut("s-2", 110)]).segments_total,
        0
    );
}

#[test]
fn a_small_read_finds_its_events_behind_many_erased_ones() {
    let directory = directory();
    let log = Log::open(directory.path(), LogOptions::default()).unwrap();
    for n in 0..20 {
        log.append(append("a", Any, n * 1_000..(n + 1) * 1_000))
            .unwrap();
    }
    scavenge(&log, &[cut("a", 19_990)]);
    let first = read(&log, &Read::stream(stream("a")).limit(1));
    assert_eq!((first.len(), first[0].revision), (1, Revision::new(19_990)));
    let from_below = Read::stream(stream("a"))
        .from_revision(Revision::new(5))
        .limit(4);
    let revisions: Vec<_> = read(&log, &from_below)
        .iter()
        .map(|e| e.revision.get())
        .collect();
    assert_eq!(revisions, [19_990, 19_991, 19_992, 19_993]);
    let below = Read::stream(stream("a"))
        .from_revision(Revision::new(5))
        .backwards();
    assert!(read(&log, &below).is_empty());
}

#[test]
fn segments_that_fill_meanwhile_are_sealed_and_scavenged_without_meeting() {
    let directory = directory();
    let log = open(&directory);
    let done = AtomicBool::new(false);
    let events = 4_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..events {
                log.append(append("w", Any, [n])).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let before = log.head().get();
            let options = ScavengeOptions::default();
            let cuts = [cut("w", before)];
            let done = log.scavenge(&cuts, options, &mut |_| ControlFlow::Continue(()));
            let through = done.unwrap().through.get().min(before);
            let left = read(&log, &Read::stream(stream("w")));
            assert!(left.iter().all(|event| event.position.get() > through));
            assert!(left.is_sorted_by(|a, b| a.revision.next() == b.revision));
        }
    });
    assert!(log.maintenance_error().is_none());
    scavenge(&log, &[cut("w", events - 1)]);
    assert_eq!(read(&log, &Read::all()).len(), 1);
    log.close().unwrap();
    drop(log);
    assert_eq!(verified(directory.path()).erased, events - 1);
}
