//! Rules at the limits of names and data.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use leftfold_model::{
    Append, ContentType, EventType, ExpectedRevision::Any, NewEvent, Read, StreamName, Tag,
    Timestamp, limits,
};

use super::{
    Fixture,
    fixtures::{event, of_tags, ok, read, stream, tagged, to},
};

pub async fn names_at_their_limits_are_stored(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let name = StreamName::new("s".repeat(limits::STREAM_NAME_BYTES_MAX)).unwrap();
    let kind = EventType::new("t".repeat(limits::EVENT_TYPE_BYTES_MAX)).unwrap();
    let label = Tag::new("g".repeat(limits::TAG_BYTES_MAX)).unwrap();
    let event = NewEvent::json(kind.clone(), "{}")
        .with_tags([label.clone()])
        .unwrap();
    ok(store
        .append(Append::to(name.clone(), Any, vec![event]).unwrap())
        .await);
    let stored = read(&store, Read::query(of_tags(&[label.as_str()])))
        .await
        .remove(0);
    assert_eq!(
        (stored.stream, stored.event_type, stored.tags),
        (name.clone(), kind, vec![label])
    );
    assert_eq!(read(&store, Read::stream(name)).await.len(), 1);
}

pub async fn sixty_four_tags_are_stored_and_found(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let tags: Vec<String> = (0..limits::TAGS_PER_EVENT_MAX)
        .map(|n| format!("tag:{n}"))
        .collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    ok(store
        .append(to("a", Any, vec![tagged("T", &tags), event("T")]))
        .await);
    assert_eq!(read(&store, Read::query(of_tags(&tags))).await.len(), 1);
}

pub async fn data_of_every_byte_and_of_none_is_kept(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let every: Vec<u8> = (0..=255).collect();
    for data in [every, Vec::new()] {
        let event = NewEvent::new(
            EventType::new("T").unwrap(),
            ContentType::Binary,
            data.clone(),
        )
        .with_metadata(data.clone());
        ok(store
            .append(Append::to(stream("a"), Any, vec![event]).unwrap())
            .await);
        let stored = read(&store, Read::all().backwards().limit(1))
            .await
            .remove(0);
        assert_eq!(
            (stored.data.as_ref(), stored.metadata.as_ref()),
            (data.as_slice(), data.as_slice())
        );
    }
}

pub async fn the_largest_data_is_kept(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let data = vec![7; limits::DATA_BYTES_MAX];
    let event = NewEvent::new(
        EventType::new("T").unwrap(),
        ContentType::Binary,
        data.clone(),
    );
    ok(store
        .append(Append::to(stream("a"), Any, vec![event]).unwrap())
        .await);
    ok(store.append(to("a", Any, vec![tagged("T", &["x"])])).await);
    let stored = read(&store, Read::all()).await;
    assert_eq!(stored.len(), 2);
    assert!(stored[0].data == data);
}

pub async fn names_are_kept_byte_for_byte(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for name in [
        "../up",
        "with space",
        "%2e%2e",
        "\u{202e}rtl",
        "e\u{301}",
        "\u{e9}",
        "nul\0nul",
        "-",
        "$system",
        "line\nbreak",
    ] {
        ok(store.append(to(name, Any, vec![event(name)])).await);
        let stored = read(&store, Read::stream(stream(name))).await;
        assert_eq!(
            (
                stored.len(),
                stored[0].stream.as_str(),
                stored[0].event_type.as_str()
            ),
            (1, name, name)
        );
    }
}

pub async fn a_given_time_is_recorded(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let time = Timestamp::from_micros(1_234_567_890_123_456);
    ok(store
        .append(to("a", Any, vec![event("T").with_time(time), event("T")]))
        .await);
    let stored = read(&store, Read::all()).await;
    assert_eq!(stored[0].time, time);
    assert!(stored[1].time > time);
}
