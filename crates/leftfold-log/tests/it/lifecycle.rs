//! Appending, reading, closing and opening again.

use leftfold_log::{AppendError, LogOptions, OpenError};
use leftfold_log::{Log, disk::FileName};
use leftfold_model::{
    Append, Conflict, Direction, ExpectedRevision, NewEvent, Position, Query, Read, Revision,
    Scope, StreamWrite,
};

use crate::story::{append, directory, event, id, open, read, stream, tiny, try_read};

use ExpectedRevision::{Any, Exact, NoStream};

#[test]
fn what_is_appended_is_read_again_after_reopening() {
    let directory = directory();
    let log = open(&directory);
    for n in 0..500 {
        log.append(append(&format!("s-{}", n % 11), Any, [n]))
            .unwrap();
    }
    let before = read(&log, &Read::all());
    assert_eq!(before.len(), 500);
    assert!(
        before
            .iter()
            .zip(1..)
            .all(|(event, position)| event.position == Position::new(position))
    );
    log.close().unwrap();
    drop(log);
    let log = open(&directory);
    assert!(log.report().clean);
    assert_eq!(read(&log, &Read::all()), before);
    let mut backwards = read(&log, &Read::all().backwards());
    backwards.reverse();
    assert_eq!(backwards, before);
    let of_stream = read(
        &log,
        &Read::stream(stream("s-3")).from_revision(Revision::new(5)),
    );
    let expected: Vec<_> = before
        .iter()
        .filter(|e| e.stream == stream("s-3"))
        .skip(5)
        .cloned()
        .collect();
    assert_eq!(of_stream, expected);
}

#[test]
fn a_log_dropped_without_close_stops_cleanly() {
    let directory = directory();
    open(&directory)
        .append(append("a", NoStream, [1, 2]))
        .unwrap();
    assert!(open(&directory).report().clean);
}

#[test]
fn upkeep_keeps_the_number_of_files_low_and_changes_no_answer() {
    let directory = directory();
    let log = open(&directory);
    for n in 0..3_000 {
        log.append(append(&format!("s-{}", n % 5), Any, [n]))
            .unwrap();
    }
    let events = read(&log, &Read::all());
    assert_eq!(events.len(), 3_000);
    assert_eq!(read(&log, &Read::stream(stream("s-1"))).len(), 600);
    log.close().unwrap();
    drop(log);
    let log = open(&directory);
    assert_eq!(read(&log, &Read::all()), events);
    assert!(log.stats().segments >= 60, "{:?}", log.stats());
    assert!(log.maintenance_error().is_none());
    for n in 3_000..3_100 {
        log.append(append("s-1", Exact(Revision::new(n - 3_000 + 599)), [n]))
            .unwrap();
    }
    assert_eq!(
        read(&log, &Read::stream(stream("s-1")).backwards().limit(1))[0].revision,
        Revision::new(699)
    );
}

#[test]
fn a_retried_append_answers_its_first_places_also_after_reopening() {
    let directory = directory();
    let log = open(&directory);
    let first = log.append(append("a", NoStream, [1, 2])).unwrap();
    log.append(append("a", Exact(Revision::new(1)), [3]))
        .unwrap();
    let any = log.append(append("b", Any, [4])).unwrap();
    log.close().unwrap();
    let log = open(&directory);
    let again = log.append(append("a", NoStream, [1, 2])).unwrap();
    assert!(again.repeated);
    assert_eq!((again.first, again.last), (first.first, first.last));
    let again = log.append(append("b", Any, [4])).unwrap();
    assert_eq!((again.first, again.repeated), (any.first, true));
    let partly = log.append(append("a", NoStream, [1, 9])).unwrap_err();
    let AppendError::Conflict(Conflict::PartlyStored { id: found, .. }) = partly else {
        panic!("{partly}")
    };
    assert_eq!(found, id(1));
    assert_eq!(log.head(), Position::new(4));
}

#[test]
fn closing_gives_back_what_was_reserved_and_appends_go_on_in_the_same_segment() {
    let directory = directory();
    let bytes = || -> u64 {
        let files = std::fs::read_dir(directory.path()).unwrap();
        // While the log is open, a file may get its final name between the listing and the question.
        let sizes = files.map(|file| file.unwrap().metadata().map_or(0, |it| it.len()));
        sizes.sum()
    };
    let open = || Log::open(directory.path(), LogOptions::default()).unwrap();
    for n in 0..20 {
        let log = open();
        log.append(append("s", Any, [n])).unwrap();
        assert!(bytes() > 1024 * 1024, "room is reserved while it is open");
        log.close().unwrap();
        drop(log);
        assert!(bytes() < 8 * 1024, "{} bytes for {} events", bytes(), n + 1);
    }
    let log = open();
    assert!(log.report().clean);
    assert_eq!(read(&log, &Read::all()).len(), 20);
    assert_eq!(log.stats().segments, 1);
}

#[test]
fn a_second_log_on_one_directory_fails_at_once() {
    let directory = directory();
    let log = open(&directory);
    let second = Log::open(directory.path(), tiny()).unwrap_err();
    assert!(matches!(second, OpenError::Lock(_)), "{second}");
    drop(log);
    open(&directory);
}

#[test]
fn a_directory_whose_lock_file_was_removed_is_still_in_use() {
    let directory = directory();
    let log = open(&directory);
    std::fs::remove_file(directory.path().join("lock")).unwrap();
    for second in [
        Log::open(directory.path(), tiny()),
        Log::open_read_only(directory.path(), tiny()),
    ] {
        let refused = second.unwrap_err();
        assert!(matches!(refused, OpenError::Lock(_)), "{refused}");
    }
    log.append(append("a", NoStream, [1])).unwrap();
    log.close().unwrap();
    std::fs::remove_file(directory.path().join("lock")).unwrap();
    let reader = Log::open_read_only(directory.path(), tiny()).unwrap();
    assert!(!directory.path().join("lock").exists());
    assert!(Log::open(directory.path(), tiny()).is_err(), "it is read");
    drop(reader);
    open(&directory);
}

#[test]
fn a_directory_that_is_moved_stays_the_logs_and_another_in_its_place_is_not_touched() {
    let parent = directory();
    let (here, moved) = (parent.path().join("data"), parent.path().join("moved"));
    let log = Log::open(&here, tiny()).unwrap();
    log.append(append("a", Any, 0..40)).unwrap();
    std::fs::rename(&here, &moved).unwrap();
    std::fs::create_dir(&here).unwrap();
    for n in 100..400 {
        log.append(append("a", Any, [n])).unwrap();
    }
    let events = read(&log, &Read::all());
    log.close().unwrap();
    drop(log);
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0);
    let log = Log::open(&moved, tiny()).unwrap();
    assert!(log.report().clean);
    assert_eq!(read(&log, &Read::all()), events);
    assert_eq!(events.len(), 340);
}

#[test]
fn a_directory_that_is_moved_while_it_is_only_read_stays_the_readers() {
    let parent = directory();
    let (here, moved) = (parent.path().join("data"), parent.path().join("moved"));
    // More files than the reader keeps open.
    let options = tiny().with_segment_events(5);
    let log = Log::open(&here, options.clone()).unwrap();
    for n in 0..200 {
        log.append(append("a", Any, 5 * n..5 * n + 5)).unwrap();
    }
    let events = read(&log, &Read::all());
    log.close().unwrap();
    drop(log);
    let reader = Log::open_read_only(&here, options).unwrap();
    std::fs::rename(&here, &moved).unwrap();
    // Such as an older backup of the log, with files of the same names.
    std::fs::create_dir(&here).unwrap();
    for entry in std::fs::read_dir(&moved).unwrap() {
        std::fs::write(here.join(entry.unwrap().file_name()), "").unwrap();
    }
    assert_eq!(read(&reader, &Read::all()), events);
}

#[cfg(unix)]
#[test]
fn a_name_of_the_log_that_is_a_link_or_a_directory_is_refused() {
    let (golden, elsewhere) = (directory(), directory());
    open(&golden).append(append("a", NoStream, [1])).unwrap();
    let segment = golden.path().join("0000000000000001-00000000.seg");
    let aside = elsewhere.path().join("segment");
    std::fs::rename(&segment, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &segment).unwrap();
    let refused = format!("{:?}", Log::open(golden.path(), tiny()).unwrap_err());
    assert!(refused.contains("is not a regular file"), "{refused}");
    std::fs::remove_file(&segment).unwrap();
    std::fs::create_dir(&segment).unwrap();
    let refused = format!("{:?}", Log::open(golden.path(), tiny()).unwrap_err());
    assert!(refused.contains("is not a regular file"), "{refused}");
    std::fs::remove_dir(&segment).unwrap();
    std::fs::rename(&aside, &segment).unwrap();
    assert_eq!(read(&open(&golden), &Read::all()).len(), 1);
}

#[test]
fn a_foreign_file_is_refused_by_name_and_nothing_is_changed() {
    let directory = directory();
    std::fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let refused = Log::open(directory.path(), tiny()).unwrap_err().to_string();
    assert!(refused.contains("notes.txt"), "{refused}");
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        names
            .iter()
            .all(|name| name == "notes.txt" || name == "lock"),
        "{names:?}"
    );
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let directory = directory();
    open(&directory).append(append("a", NoStream, [1])).unwrap();
    let segment = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|e| e.unwrap().path());
    let segment = segment
        .into_iter()
        .find(|p| p.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8..12].copy_from_slice(&3_u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&segment, &bytes).unwrap();
    let refused = Log::open(directory.path(), tiny()).unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::NewerFormat {
                found: 3,
                newest: 2,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(std::fs::read(&segment).unwrap(), bytes);
}

#[test]
fn an_append_larger_than_a_segment_gets_one_of_its_own() {
    let directory = directory();
    let log = open(&directory);
    log.append(append("a", NoStream, 0..200)).unwrap();
    let large = NewEvent::json(event(900).event_type().clone(), vec![b'x'; 100_000]);
    log.append(Append::to(stream("b"), NoStream, vec![large.clone()]).unwrap())
        .unwrap();
    log.append(append("a", Exact(Revision::new(199)), [300]))
        .unwrap();
    assert_eq!(read(&log, &Read::stream(stream("b")))[0].data, large.data());
    log.close().unwrap();
    let log = open(&directory);
    assert_eq!(read(&log, &Read::all()).len(), 202);
}

#[test]
fn writes_to_several_streams_are_one() {
    let directory = directory();
    let log = open(&directory);
    log.append(append("a", NoStream, [1])).unwrap();
    let write = |name: &str, expected, n| StreamWrite {
        stream: stream(name),
        expected,
        events: vec![event(n)],
    };
    let refused = Append::new(
        vec![write("b", NoStream, 2), write("a", NoStream, 3)],
        vec![],
    )
    .unwrap();
    assert!(log.append(refused).is_err());
    assert!(read(&log, &Read::stream(stream("b"))).is_empty());
    let both = Append::new(
        vec![
            write("b", NoStream, 4),
            write("a", Exact(Revision::FIRST), 5),
        ],
        vec![],
    );
    let both = log.append(both.unwrap()).unwrap();
    assert_eq!((both.first.get(), both.last.get()), (2, 3));
}

#[test]
fn many_threads_share_syncs_and_every_event_stands_once() {
    let directory = directory();
    let log = Log::open(directory.path(), LogOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16_u64 {
            let log = log.clone();
            scope.spawn(move || {
                for n in 0..50 {
                    log.append(append(&format!("w-{thread}"), Any, [thread * 1_000 + n]))
                        .unwrap();
                }
            });
        }
    });
    let stats = log.stats();
    assert_eq!((stats.events, stats.appends), (800, 800));
    assert!(stats.syncs < 800, "{} syncs", stats.syncs);
    for thread in 0..16 {
        assert_eq!(
            read(&log, &Read::stream(stream(&format!("w-{thread}")))).len(),
            50
        );
    }
}

#[test]
fn a_follower_gets_every_event_once_while_others_write() {
    let directory = directory();
    let log = open(&directory);
    std::thread::scope(|scope| {
        let writer = log.clone();
        scope.spawn(move || {
            (0..400).for_each(|n| drop(writer.append(append("s", Any, [n])).unwrap()))
        });
        let mut follower = log.follow(Scope::All, Query::All, Position::START);
        let mut seen = 0;
        while seen < 400 {
            let delivered = follower.wait_next().unwrap().unwrap();
            for event in delivered.events {
                seen += 1;
                assert_eq!(event.position, Position::new(seen));
            }
        }
    });
}

#[test]
fn a_read_keeps_its_view_while_others_write() {
    let directory = directory();
    let log = open(&directory);
    log.append(append("s", Any, 0..100)).unwrap();
    let mut cursor = log
        .read(&Read {
            direction: Direction::Backwards,
            ..Read::all()
        })
        .unwrap();
    log.append(append("s", Any, 100..200)).unwrap();
    let first = cursor.next_batch().unwrap().unwrap();
    assert_eq!(first[0].position, Position::new(100));
    assert_eq!(cursor.token().seen_through(), Position::new(100));
}

#[test]
fn streams_are_listed_with_their_counts() {
    let directory = directory();
    let log = open(&directory);
    for n in 0..300 {
        log.append(append(&format!("s-{:02}", n % 20), Any, [n]))
            .unwrap();
    }
    let mut streams = log.streams("s-1", Some(&stream("s-12"))).unwrap();
    let listed = streams.next_batch(100).unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|entry| entry.stream.to_string())
        .collect();
    assert_eq!(
        names,
        ["s-13", "s-14", "s-15", "s-16", "s-17", "s-18", "s-19"]
    );
    assert!(
        listed
            .iter()
            .all(|entry| entry.events == 15 && entry.revision == Revision::new(14))
    );
}

#[test]
fn a_revision_without_a_stream_is_refused() {
    let directory = directory();
    let log = open(&directory);
    assert!(try_read(&log, &Read::all().from_revision(Revision::FIRST)).is_err());
    assert!(FileName::parse("x").is_none());
}
