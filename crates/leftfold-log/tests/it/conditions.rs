//! Costly conditions and repetitions: who pays for them.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use leftfold_log::{AppendError, Log, SystemClock, disk::FileKind};
use leftfold_model::{
    Append, AppendCondition, Appended, Conflict, EventType, ExpectedRevision::Any, Position, Query,
    QueryItem, Tag,
};

use crate::{
    faulty_disk::FaultyDisk,
    story::{append, directory, stream, tiny},
};

/// How long something may take that must not wait for the other.
const LIMIT: Duration = Duration::from_secs(30);

/// A log of several sealed segments, whose index is read from files each time.
fn sealed_log(disk: &FaultyDisk) -> Log {
    let options = tiny().with_cache_bytes(0);
    let log = Log::open_on(Arc::new(disk.clone()), options, Arc::new(SystemClock)).unwrap();
    for n in 0..400 {
        log.append(append("s-1", Any, [n])).unwrap();
    }
    log
}

/// An append whose condition looks at index files, and fails.
fn guarded() -> Append {
    let item = QueryItem::new([EventType::new("T0").unwrap()], [Tag::new("n:0").unwrap()]);
    let query = Query::items([item.unwrap()]).unwrap();
    append("guarded-1", Any, [10_000])
        .with_condition(AppendCondition::new(query, Position::START))
        .unwrap()
}

fn is_refused(outcome: Result<Appended, AppendError>) -> bool {
    matches!(
        outcome,
        Err(AppendError::Conflict(Conflict::ConditionFailed { position, .. })) if position == Position::FIRST
    )
}

/// Runs `other` while the lookups of a guarded append are held up at the index files; both must come to their ends.
fn beside_a_held_up_condition(
    guarded_append: impl FnOnce(&Log) -> Result<Appended, AppendError> + Send + 'static,
    other: impl FnOnce(&Log) -> Result<Appended, AppendError> + Send + 'static,
) {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    let log = sealed_log(&disk);
    log.append(append("other-1", Any, [20_000])).unwrap();
    let gate = disk.hold_index_reads();
    let held = log.clone();
    let held = thread::spawn(move || guarded_append(&held));
    gate.wait_for_a_reader(LIMIT);
    let (sender, receiver) = mpsc::channel();
    let beside = log.clone();
    let beside = thread::spawn(move || sender.send(other(&beside)));
    let Ok(outcome) = receiver.recv_timeout(LIMIT) else {
        gate.open();
        panic!("an append waits for the condition of another");
    };
    gate.open();
    assert!(is_refused(held.join().unwrap()));
    beside.join().unwrap().unwrap();
    outcome.unwrap();
    log.close().unwrap();
}

#[test]
fn an_append_does_not_wait_for_the_condition_of_another_caller() {
    beside_a_held_up_condition(
        |log| log.append(guarded()),
        |log| log.append(append("other-1", Any, [20_001])),
    );
}

#[test]
fn a_queued_append_does_not_wait_for_the_condition_of_another() {
    beside_a_held_up_condition(
        |log| log.submit(guarded()).unwrap().wait(),
        |log| log.submit(append("other-1", Any, [20_001])).unwrap().wait(),
    );
}

/// What was looked up of streams holds until a segment starts, which this append makes one do.
#[test]
fn an_append_that_starts_a_segment_looks_its_many_streams_up_where_no_other_waits_for_it() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    let log = sealed_log(&disk);
    log.append(append("other-1", Any, [20_000])).unwrap();
    let mut many = append("large-1", Any, 30_000..30_050);
    for n in 0..300 {
        many = many.with_check(stream(&format!("s-{n}")), Any).unwrap();
    }
    let gate = Arc::new(Mutex::new(None));
    let (armed, at) = (disk.clone(), Arc::clone(&gate));
    disk.refuse(move |operation, name| {
        let starts = matches!(name.kind(), FileKind::Segment { .. } | FileKind::Spare);
        if operation == "sync" && starts && thread::current().name() == Some("large") {
            at.lock()
                .unwrap()
                .get_or_insert_with(|| armed.hold_index_reads());
        }
        None
    });
    let large = thread::Builder::new().name("large".to_owned());
    let appended = log.clone();
    let large = large.spawn(move || appended.append(many)).unwrap();
    let gate = loop {
        match gate.lock().unwrap().clone() {
            Some(gate) => break gate,
            None => thread::yield_now(),
        }
    };
    gate.wait_for_a_reader(LIMIT);
    let (sender, receiver) = mpsc::channel();
    let beside = log.clone();
    let beside =
        thread::spawn(move || sender.send(beside.append(append("other-1", Any, [20_001]))));
    let outcome = receiver.recv_timeout(LIMIT);
    gate.open();
    large.join().unwrap().unwrap();
    beside.join().unwrap().unwrap();
    outcome
        .expect("an append waits for the lookups of another")
        .unwrap();
    log.close().unwrap();
}

#[test]
fn appends_of_one_stream_keep_their_order_although_the_first_of_them_is_slow() {
    let directory = directory();
    let disk = FaultyDisk::at(&directory);
    let log = sealed_log(&disk);
    let item = QueryItem::new(
        [EventType::new("T0").unwrap()],
        [Tag::new("n:none").unwrap()],
    );
    let query = Query::items([item.unwrap()]).unwrap();
    let slow = append("other-1", Any, [30_000])
        .with_condition(AppendCondition::new(query, Position::START))
        .unwrap();
    let gate = disk.hold_index_reads();
    let first = log.submit(slow).unwrap();
    let second = log.submit(append("other-1", Any, [30_001])).unwrap();
    gate.open();
    let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
    assert!(first.last < second.first, "{first:?} {second:?}");
    log.close().unwrap();
}
