//! Rules of appends as wholes.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{
    Append, Conflict,
    ExpectedRevision::{Any, NoStream},
    Position, Read, Revision,
};

use super::{
    Fixture,
    fixtures::{
        conflict, event, events, exact, of_types, ok, read, revisions, stream, to, unless, write,
    },
};

pub async fn one_refused_write_of_several_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", NoStream, events(1))).await);
    let writes = vec![
        write("b", NoStream, events(1)),
        write("a", NoStream, events(1)),
        write("c", Any, events(1)),
    ];
    let refused = conflict(store.append(Append::new(writes, vec![]).unwrap()).await);
    assert!(
        matches!(refused, Conflict::WrongRevision { stream: named, .. } if named == stream("a"))
    );
    assert_eq!(store.head().await.unwrap(), Position::FIRST);
    assert!(read(&store, Read::stream(stream("b"))).await.is_empty());
}

pub async fn an_append_to_several_streams_takes_adjacent_positions_in_order(
    fixture: &impl Fixture,
) {
    let store = fixture.open().await;
    ok(store.append(to("a", NoStream, events(1))).await);
    let writes = vec![
        write("b", NoStream, events(2)),
        write("a", exact(0), events(1)),
    ];
    let appended = ok(store.append(Append::new(writes, vec![]).unwrap()).await);
    assert_eq!((appended.first.get(), appended.last.get()), (2, 4));
    assert_eq!(
        appended.streams,
        [
            (stream("b"), Revision::new(1)),
            (stream("a"), Revision::new(1))
        ]
    );
    let names: Vec<_> = read(&store, Read::all())
        .await
        .iter()
        .map(|event| event.stream.to_string())
        .collect();
    assert_eq!(names, ["a", "b", "b", "a"]);
}

pub async fn a_stream_may_come_twice_and_sees_its_earlier_write(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let twice = |second| {
        vec![
            write("a", NoStream, events(2)),
            write("b", Any, events(1)),
            write("a", second, events(1)),
        ]
    };
    conflict(
        store
            .append(Append::new(twice(exact(0)), vec![]).unwrap())
            .await,
    );
    conflict(
        store
            .append(Append::new(twice(NoStream), vec![]).unwrap())
            .await,
    );
    let append = Append::new(twice(exact(1)), vec![]).unwrap();
    ok(store.append(append.clone()).await);
    assert_eq!(
        revisions(&store, Read::stream(stream("a"))).await,
        [0, 1, 2]
    );
    assert!(ok(store.append(append).await).repeated);
}

pub async fn a_failed_condition_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    ok(store.append(to("a", Any, vec![event("Seen")])).await);
    conflict(
        store
            .append(unless(to("b", Any, events(3)), of_types(&["Seen"]), 0))
            .await,
    );
    assert_eq!(store.head().await.unwrap(), Position::FIRST);
}

pub async fn ten_thousand_events_are_one_append(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let appended = ok(store.append(to("a", NoStream, events(10_000))).await);
    assert_eq!((appended.first.get(), appended.last.get()), (1, 10_000));
    let stored = revisions(&store, Read::stream(stream("a"))).await;
    assert!(
        stored
            .iter()
            .zip(0..)
            .all(|(&found, expected)| found == expected)
            && stored.len() == 10_000
    );
}
