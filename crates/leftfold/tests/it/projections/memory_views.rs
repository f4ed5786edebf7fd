//! The suite of projections over views that need no database.

use std::{collections::BTreeMap, sync::Arc};

use leftfold::{KeyValueView, MemoryView, Store};

use super::suite;

mod in_memory {
    use super::{BTreeMap, MemoryView, suite};

    async fn view() -> (MemoryView<BTreeMap<String, i64>>, ()) {
        (MemoryView::new(), ())
    }

    suite!(view());
}

mod key_value {
    use super::{KeyValueView, suite};

    async fn view() -> (KeyValueView, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let view = KeyValueView::open(directory.path().join("views.redb"));
        (view.await.unwrap(), directory)
    }

    suite!(view());
}

/// As processes do that are started together.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_all_who_open_a_file_that_is_not_there_yet_one_gets_it() {
    for _ in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("views.redb");
        let begin = Arc::new(tokio::sync::Barrier::new(4));
        let opening = (0..4).map(|_| {
            let (path, begin) = (path.clone(), Arc::clone(&begin));
            tokio::spawn(async move {
                begin.wait().await;
                KeyValueView::open(path).await
            })
        });
        let mut opened = Vec::new();
        for task in opening.collect::<Vec<_>>() {
            opened.push(task.await.unwrap());
        }
        let have_it = opened.iter().filter(|opened| opened.is_ok()).count();
        assert_eq!(have_it, 1, "{opened:?}");
        drop(opened);
        KeyValueView::open(path).await.unwrap();
        let names = std::fs::read_dir(directory.path()).unwrap();
        assert_eq!(names.count(), 1, "nothing is left beside it");
    }
}

#[tokio::test]
async fn a_view_is_not_kept_in_the_directory_of_a_store_which_would_not_open_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let refused = KeyValueView::open(directory.path().join("views.redb")).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("directory of a log"), "{refused}");
    store.close().await.unwrap();
    drop(store);
    Store::open(directory.path()).await.unwrap();
}
