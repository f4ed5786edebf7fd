//! What a log says of itself while its disk fails: for those who watch it.

use std::sync::Arc;

use leftfold_log::{AppendError, Log, LogOptions};
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_sim::{Fault, Op, SimDisk};

use crate::small_log::StillClock;

fn append(log: &Log) -> bool {
    let event = NewEvent::json(EventType::new("T").unwrap(), "{}");
    let stream = StreamName::new("s").unwrap();
    log.append(Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap())
        .is_ok()
}

#[test]
fn a_log_says_that_it_takes_appends_until_its_disk_failed_or_it_was_closed() {
    let disk = SimDisk::new();
    let open = || {
        let disk = Arc::new(disk.clone());
        Log::open_on(disk, LogOptions::default(), Arc::new(StillClock)).unwrap()
    };
    let log = open();
    assert!(append(&log));
    assert!(log.check().is_ok());
    log.close().unwrap();
    assert!(matches!(log.check(), Err(AppendError::Closed)));
    drop(log);

    let log = open();
    loop {
        // Upkeep may meet the fault instead of the append; it tries again, and owes less and less.
        disk.fail(Some(Fault::io(Op::Sync, 1)));
        if !append(&log) {
            break;
        }
        assert!(log.check().is_ok());
    }
    assert!(matches!(log.check(), Err(AppendError::ReadOnly { .. })));
}
