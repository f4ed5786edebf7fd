//! Commands on states kept in memory do what they would do without.

use leftfold::{Aggregate, Event, ExecuteError, Store};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    account::{BankAccount, InsufficientFunds},
    faulty::{Fault, Faulty},
};

#[tokio::test]
async fn a_command_on_a_kept_state_reads_nothing_and_a_refusal_reads_again() {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let keeping = accounts.with_state_cache(10);
    keeping.execute("1", |a| a.deposit(10)).await.unwrap();
    // Someone else, of whom the kept state does not know.
    accounts.execute("1", |a| a.deposit(90)).await.unwrap();
    let mut seen = Vec::new();
    let withdrawn = keeping.execute("1", |a| {
        seen.push(a.balance);
        a.withdraw(50)
    });
    withdrawn.await.unwrap();
    assert_eq!(
        seen,
        [10, 100],
        "refused on the kept state, decided again on a fresh one"
    );
    let refused = keeping.execute("1", |a| a.withdraw(51)).await.unwrap_err();
    let ExecuteError::Rejected(InsufficientFunds { balance, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(balance, 50);
}

#[derive(Event, Serialize, Deserialize, Debug)]
enum Noted {
    #[event("Noted")]
    Noted {
        kept: u32,
        #[serde(skip)]
        lost: u32,
    },
}

#[derive(Default, Debug, PartialEq)]
struct Notes(u32);

impl Aggregate for Notes {
    const CATEGORY: &'static str = "notes";
    type Event = Noted;

    fn apply(&mut self, event: &Noted) {
        let Noted::Noted { kept, lost } = event;
        self.0 += kept + lost;
    }
}

#[tokio::test]
async fn a_kept_state_holds_what_is_stored_and_not_what_was_decided() {
    let notes = Store::memory().repository::<Notes>().with_state_cache(1);
    for expected in [0, 1, 2] {
        let note = |notes: &Notes| {
            assert_eq!(notes.0, expected);
            Ok::<_, String>(Noted::Noted { kept: 1, lost: 7 })
        };
        notes.execute("1", note).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn commands_on_kept_states_leave_the_log_that_commands_without_would(
        commands in prop::collection::vec((0..3_u8, 0..40_u64, any::<bool>(), any::<bool>()), 1..40),
        rivals in 0..4_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::new(Faulty::new(Fault::Raced, rivals));
            let plain = store.repository::<BankAccount>();
            let keeping = plain.with_state_cache(2);
            let reference = Store::new(Faulty::new(Fault::Raced, rivals));
            let expected = reference.repository::<BankAccount>();
            for (id, amount, deposit, elsewhere) in commands {
                let id = id.to_string();
                let decide = |account: &BankAccount| if deposit { account.deposit(amount) } else { account.withdraw(amount) };
                let accounts = if elsewhere { &plain } else { &keeping };
                let got = accounts.execute(&id, decide).await;
                let wanted = expected.execute(&id, decide).await;
                match (&got, &wanted) {
                    (Ok(got), Ok(wanted)) => {
                        assert_eq!((got.revision, &got.events), (wanted.revision, &wanted.events));
                    }
                    (Err(ExecuteError::Rejected(got)), Err(ExecuteError::Rejected(wanted))) => assert_eq!(got, wanted),
                    _ => panic!("{got:?} instead of {wanted:?}"),
                }
                assert_eq!(plain.load(&id).await.unwrap().state(), expected.load(&id).await.unwrap().state());
            }
        });
    }
}
