//! The suite of projections over views that need no database.

use std::collections::BTreeMap;

use leftfold::{KeyValueView, MemoryView};

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
