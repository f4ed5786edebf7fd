//! Rules of keeping keys of subjects.
//!
//! **Owns:** the rules of this group, and [`KeysFixture`]. **Does not know:** the store of keys under test.

use std::{collections::BTreeSet, future::Future, sync::Arc};

use crate::keys::{KeyId, KeyStore, Subject, SubjectKey};

/// Gives the rules stores of keys to work on.
pub trait KeysFixture: Send + Sync {
    /// Where keys are: a file, a schema.
    type Place: Send + Sync;

    /// A fresh, empty place.
    fn place(&self) -> impl Future<Output = Self::Place> + Send;

    /// Opens the keys of a place. It may be opened again after everything that used it was dropped.
    fn open(&self, place: &Self::Place) -> impl Future<Output = Arc<dyn KeyStore>> + Send;
}

fn subject(tenant: &str, kind: &str, id: &str) -> Subject {
    Subject {
        tenant: tenant.to_owned(),
        kind: kind.to_owned(),
        id: id.to_owned(),
    }
}

fn guest(id: &str) -> Subject {
    subject("", "guest", id)
}

async fn found(keys: &dyn KeyStore, ids: &[KeyId]) -> BTreeSet<KeyId> {
    let found = keys.find(ids).await.unwrap();
    found.iter().map(|key| key.id).collect()
}

pub async fn a_key_is_created_once_and_comes_back_by_subject_and_by_name(
    fixture: &impl KeysFixture,
) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    let key = keys.key(&guest("g1")).await.unwrap();
    assert_eq!(keys.key(&guest("g1")).await.unwrap(), key);
    assert_eq!(
        keys.existing(&guest("g1")).await.unwrap(),
        Some(key.clone())
    );
    assert_eq!(keys.find(&[key.id]).await.unwrap(), [key]);
}

pub async fn subjects_that_differ_in_any_part_have_keys_of_their_own(fixture: &impl KeysFixture) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    let subjects = [
        subject("", "guest", "g1"),
        subject("", "guest", "g11"),
        subject("", "guestg", "1"),
        subject("g", "uest", "g1"),
        subject("guest", "", "g1"),
        subject("", "", "guestg1"),
        subject("@acme/", "guest", "g1"),
        subject("", "GUEST", "g1"),
    ];
    let mut ids = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    for subject in &subjects {
        let SubjectKey { id, secret } = keys.key(subject).await.unwrap();
        ids.insert(id);
        secrets.insert(secret);
    }
    assert_eq!((ids.len(), secrets.len()), (subjects.len(), subjects.len()));
}

pub async fn a_subject_may_have_any_text(fixture: &impl KeysFixture) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    let long = "x".repeat(10_000);
    let mut ids = BTreeSet::new();
    let texts = [
        "",
        " ",
        "\0",
        "\u{1}",
        "'; drop table keys; --",
        "\u{1f980}",
        "a\nb",
        &long,
    ];
    for text in texts {
        let key = keys.key(&guest(text)).await.unwrap();
        assert_eq!(
            keys.existing(&guest(text)).await.unwrap(),
            Some(key.clone()),
            "{text:?}"
        );
        ids.insert(key.id);
    }
    assert_eq!(ids.len(), texts.len());
    keys.destroy(&guest(&long)).await.unwrap();
    assert_eq!(keys.existing(&guest(&long)).await.unwrap(), None);
}

pub async fn looking_for_a_key_creates_none(fixture: &impl KeysFixture) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), None);
    assert_eq!(keys.find(&[[7; 16]]).await.unwrap(), []);
    assert_eq!(keys.find(&[]).await.unwrap(), []);
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), None);
}

pub async fn many_names_are_found_at_once_those_that_exist(fixture: &impl KeysFixture) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    let mut ids = Vec::new();
    for nth in 0..50 {
        ids.push(keys.key(&guest(&nth.to_string())).await.unwrap().id);
    }
    let expected: BTreeSet<_> = ids.iter().copied().collect();
    let unknown = (0..5_000_u128).map(u128::to_be_bytes);
    let asked: Vec<_> = unknown.chain(ids).collect();
    assert_eq!(found(&*keys, &asked).await, expected);
}

pub async fn a_destroyed_key_is_gone_and_the_next_one_is_another(fixture: &impl KeysFixture) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    let (first, other) = (
        keys.key(&guest("g1")).await.unwrap(),
        keys.key(&guest("g2")).await.unwrap(),
    );
    keys.destroy(&guest("g1")).await.unwrap();
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), None);
    assert_eq!(
        found(&*keys, &[first.id, other.id]).await,
        [other.id].into()
    );
    let next = keys.key(&guest("g1")).await.unwrap();
    assert!(next.id != first.id && next.secret != first.secret);
    assert_eq!(keys.find(&[first.id]).await.unwrap(), []);
    assert_eq!(keys.existing(&guest("g2")).await.unwrap(), Some(other));
}

pub async fn destroying_no_key_is_no_error(fixture: &impl KeysFixture) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    keys.destroy(&guest("g1")).await.unwrap();
    let key = keys.key(&guest("g1")).await.unwrap();
    keys.destroy(&guest("g2")).await.unwrap();
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), Some(key));
    keys.destroy(&guest("g1")).await.unwrap();
    keys.destroy(&guest("g1")).await.unwrap();
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), None);
}

pub async fn keys_outlive_who_opened_them_and_destroyed_ones_do_not(fixture: &impl KeysFixture) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    let (first, second) = (
        keys.key(&guest("g1")).await.unwrap(),
        keys.key(&guest("g2")).await.unwrap(),
    );
    keys.destroy(&guest("g1")).await.unwrap();
    drop(keys);
    let keys = fixture.open(&place).await;
    assert_eq!(
        found(&*keys, &[first.id, second.id]).await,
        [second.id].into()
    );
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), None);
    assert_eq!(keys.key(&guest("g2")).await.unwrap(), second);
}

pub async fn of_many_that_create_a_key_at_once_all_get_one(fixture: &impl KeysFixture) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    for round in 0..10 {
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let keys = Arc::clone(&keys);
                tokio::spawn(async move { keys.key(&guest(&round.to_string())).await })
            })
            .collect();
        let mut ids = BTreeSet::new();
        for task in tasks {
            ids.insert(task.await.unwrap().unwrap().id);
        }
        assert_eq!(ids.len(), 1, "round {round}");
    }
}

pub async fn keys_that_are_created_and_destroyed_at_once_leave_at_most_one(
    fixture: &impl KeysFixture,
) {
    let place = fixture.place().await;
    let keys = fixture.open(&place).await;
    let tasks: Vec<_> = (0..8)
        .map(|nth| {
            let keys = Arc::clone(&keys);
            tokio::spawn(async move {
                let mut got = Vec::new();
                for _ in 0..10 {
                    match nth % 4 {
                        0 => keys.destroy(&guest("g1")).await.unwrap(),
                        _ => got.push(keys.key(&guest("g1")).await.unwrap().id),
                    }
                }
                got
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    let existing = keys.existing(&guest("g1")).await.unwrap();
    let expected = existing.iter().map(|key| key.id).collect();
    assert_eq!(
        found(&*keys, &ids).await,
        expected,
        "of all that were ever created"
    );
}
