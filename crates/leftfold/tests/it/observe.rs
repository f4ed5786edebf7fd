//! What can be seen from outside: spans and metrics, by their documented names.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use leftfold::{Metadata, Store};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::{
    account::BankAccount,
    faulty::{Fault, Faulty},
};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn on_one_thread(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work);
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The spans and events that a command records which meets one conflict.
fn rendered_metrics() -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        on_one_thread(async {
            let accounts = Store::new(Faulty::new(Fault::Raced, 1)).repository::<BankAccount>();
            let accounts = accounts.with_metadata(Metadata::new().traceparent(TRACE));
            accounts
                .execute("1", |account| account.deposit(5))
                .await
                .unwrap();
        });
    });
    let lines = lines.0.lock().unwrap().clone();
    String::from_utf8(lines).unwrap()
}

#[test]
fn spans_tell_of_loads_and_commands() {
    // A span that a test beside this one meets for the first time just then, without a subscriber, is off until the next
    // subscriber comes: `tracing` decides once for all threads. So it is another subscriber that has to be told.
    let all = |text: &str| EXPECTED.iter().all(|part| text.contains(part));
    let text = (0..10).map(|_| rendered_metrics()).find(|text| all(text));
    assert!(
        text.is_some(),
        "{EXPECTED:?} are not all in\n{}",
        rendered_metrics()
    );
}

const EXPECTED: [&str; 8] = [
    "leftfold.load{stream=account-1",
    "events_read=0",
    "events_read=1",
    "others were faster",
    "leftfold.execute{stream=account-1",
    "attempts=2",
    "outcome=\"committed\"",
    "traceparent=\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"",
];

#[test]
fn metrics_count_commands_conflicts_and_snapshots() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        on_one_thread(async {
            let store = Store::new(Faulty::new(Fault::Raced, 2));
            let accounts = store.repository::<BankAccount>().with_snapshots();
            accounts
                .execute("1", |account| account.deposit(5))
                .await
                .unwrap();
            accounts
                .execute("1", |account| account.withdraw(9_999_999))
                .await
                .unwrap_err();
            accounts.snapshot("1").await.unwrap();
            accounts.load("1").await.unwrap();
        });
    });
    let mut found = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
        if let DebugValue::Counter(count) = value {
            found.push(format!("{} {} {count}", key.name(), labels.join(",")));
        } else {
            found.push(key.name().to_owned());
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "leftfold_command_attempts",
            "leftfold_commands_total committed 1",
            "leftfold_commands_total rejected 1",
            "leftfold_conflicts_total  2",
            "leftfold_events_read",
            "leftfold_snapshots_total hit 1",
            "leftfold_snapshots_total missing 5",
            "leftfold_snapshots_total taken 1",
        ]
    );
}
