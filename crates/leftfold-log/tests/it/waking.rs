//! Followers that are woken for what they select and for nothing else.

use std::{thread, time::Duration};

use event_listener::{EventListener, Listener};
use leftfold_log::{Follower, Log, LogOptions};
use leftfold_model::{
    Append, EventType, ExpectedRevision, NewEvent, Position, Query, QueryItem, Scope, StreamName,
    Tag,
};

fn open() -> (tempfile::TempDir, Log) {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), LogOptions::default()).unwrap();
    (directory, log)
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn append(log: &Log, name: &str, tag: &str) -> Position {
    let event = NewEvent::json(EventType::new("Happened").unwrap(), "{}");
    let event = event.with_tags([Tag::new(tag).unwrap()]).unwrap();
    let append = Append::to(stream(name), ExpectedRevision::Any, vec![event]).unwrap();
    log.append(append).unwrap().last
}

fn of_tag(tag: &str) -> Query {
    let item = QueryItem::tags([Tag::new(tag).unwrap()]).unwrap();
    Query::items([item]).unwrap()
}

fn is_woken(listener: EventListener) -> bool {
    listener.wait_timeout(Duration::ZERO).is_some()
}

#[test]
fn a_follower_is_woken_for_what_it_selects_and_passes_over_the_rest() {
    let (_directory, log) = open();
    let mut by_stream = log.follow(Scope::Stream(stream("a")), Query::All, Position::START);
    let mut by_tag = log.follow(Scope::All, of_tag("x"), Position::START);
    // The first group may have been begun before anybody watched, and wakes everybody.
    drop((by_stream.listen_for_matches(), by_tag.listen_for_matches()));
    append(&log, "b", "y");

    let (of_stream, of_tag) = (by_stream.listen_for_matches(), by_tag.listen_for_matches());
    let last = append(&log, "b", "y");
    assert!(!is_woken(of_stream) && !is_woken(of_tag));
    let passed = by_stream.skip_unmatched().unwrap();
    assert!(passed.events.is_empty() && passed.caught_up && passed.through == last);
    assert!(by_stream.is_current() && by_stream.skip_unmatched().is_none());

    let (of_stream, of_tag) = (by_stream.listen_for_matches(), by_tag.listen_for_matches());
    let last = append(&log, "a", "x");
    assert!(is_woken(of_stream) && is_woken(of_tag));
    for follower in [&mut by_stream, &mut by_tag] {
        assert!(
            follower.skip_unmatched().is_none(),
            "there is something to deliver"
        );
        let delivered = follower.try_next().unwrap().unwrap();
        assert_eq!(delivered.events.len(), 1);
        assert_eq!(delivered.through, last);
    }
    log.close().unwrap();
}

/// Takes what comes until so many events were delivered; waits for nothing but what is selected.
fn take(mut follower: Follower, count: usize) -> Vec<Position> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let wake = follower.listen_for_matches();
        if let Some(delivered) = follower.try_next().unwrap() {
            seen.extend(delivered.events.iter().map(|event| event.position));
            continue;
        }
        let woken = wake.wait_timeout(Duration::from_secs(60));
        assert!(
            woken.is_some(),
            "woken within a minute, seen {}",
            seen.len()
        );
    }
    seen
}

#[test]
fn no_selected_commit_passes_unnoticed_while_writers_race_and_followers_come_and_go() {
    let (_directory, log) = open();
    let (writers, each) = (4, 300);
    let all = thread::scope(|scope| {
        let followers: Vec<_> = (0..writers)
            .map(|writer| {
                let log = &log;
                let name = format!("s-{writer}");
                scope.spawn(move || {
                    let follower =
                        log.follow(Scope::Stream(stream(&name)), Query::All, Position::START);
                    take(follower, each)
                })
            })
            .collect();
        for writer in 0..writers {
            let log = &log;
            scope.spawn(move || {
                for nth in 0..each {
                    append(log, &format!("s-{writer}"), "x");
                    if nth % 10 == 0 {
                        // Others come and go meanwhile.
                        let mut other = log.follow(Scope::All, of_tag("none"), Position::START);
                        drop(other.listen_for_matches());
                    }
                }
            });
        }
        let taken = followers
            .into_iter()
            .map(|follower| follower.join().unwrap());
        taken.collect::<Vec<_>>()
    });
    for seen in all {
        assert_eq!(seen.len(), each);
        assert!(seen.is_sorted());
    }
    log.close().unwrap();
}

#[test]
fn followers_that_wait_for_what_they_select_hear_of_the_end() {
    let (_directory, log) = open();
    let mut follower = log.follow(Scope::Stream(stream("a")), Query::All, Position::START);
    let wake = follower.listen_for_matches();
    log.close().unwrap();
    assert!(is_woken(wake) && follower.is_closed());
}
