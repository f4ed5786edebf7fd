//! Records: ids, schemas, properties, sizes.
//!
//! **Owns:** tests. **Does not know:** streams' states.

use std::collections::HashMap;

use leftfold_model::{ContentType, Tag, limits};
use leftfold_proto::{
    kurrentdb::protocol::v2::streams::{
        AppendRecord, SchemaFormat, errors::AppendRecordSizeExceededErrorDetails,
    },
    prost::Message,
    prost_types::{ListValue, Struct, Value, value::Kind},
    umadb::v1::{Query, QueryItem, ReadRequest, SequencedEvent, dcb_client::DcbClient},
};
use tonic::Code;

use crate::{
    client::{TestClient, all, detail, record, request, with_id},
    test_server::TestServer,
};

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.into()))
}

fn with(properties: &[(&str, Value)]) -> AppendRecord {
    let own = |(key, value): &(&str, Value)| ((*key).to_owned(), value.clone());
    AppendRecord {
        properties: properties.iter().map(own).collect(),
        ..record("OrderPlaced")
    }
}

#[tokio::test]
async fn properties_and_schema_are_kept_as_metadata_in_json() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let list = ListValue {
        values: vec![value(Kind::BoolValue(true)), value(Kind::NullValue(0))],
    };
    let members = Struct {
        fields: [("x".to_owned(), value(Kind::NumberValue(0.5)))].into(),
    };
    let mut given = with(&[
        ("stringValue", text("string")),
        ("whole", value(Kind::NumberValue(7.0))),
        ("list", value(Kind::ListValue(list))),
        ("nested", value(Kind::StructValue(members))),
        ("$schema.name", text("overwritten")),
    ]);
    given.schema.as_mut().unwrap().id = Some("s-1".into());
    client.session([request("a", None, [given])]).await.unwrap();
    let events = all(&*server.store).await;
    let expected = concat!(
        r#"{"$schema.format":"Json","$schema.id":"s-1","$schema.name":"OrderPlaced","#,
        r#""list":[true,null],"nested":{"x":0.5},"stringValue":"string","whole":7}"#
    );
    assert_eq!(std::str::from_utf8(&events[0].metadata), Ok(expected));
    assert_eq!(events[0].event_type.as_str(), "OrderPlaced");
    server.stop().await;
}

#[tokio::test]
async fn the_schema_format_tells_what_the_data_is() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let formats = [
        (SchemaFormat::Json, "Json", ContentType::Json),
        (SchemaFormat::Bytes, "Bytes", ContentType::Binary),
        (SchemaFormat::Avro, "Avro", ContentType::Binary),
        (SchemaFormat::Protobuf, "Protobuf", ContentType::Binary),
    ];
    let records = formats.map(|(format, ..)| {
        let mut record = record("T");
        record.schema.as_mut().unwrap().format = format.into();
        record
    });
    client.session([request("a", None, records)]).await.unwrap();
    for (event, (_, reported, content_type)) in all(&*server.store).await.iter().zip(formats) {
        let metadata: HashMap<String, String> = serde_json::from_slice(&event.metadata).unwrap();
        assert_eq!(metadata["$schema.format"], reported);
        assert_eq!(event.content_type, content_type);
    }
    server.stop().await;
}

#[tokio::test]
async fn tags_in_a_property_answer_queries_of_the_other_protocol() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let list = ListValue {
        values: vec![text("order:7"), text("customer:1")],
    };
    let records = [
        with(&[("$tags", value(Kind::ListValue(list)))]),
        with(&[("$tags", text("[\"order:7\"]"))]),
        with(&[("$tags", text("order:8"))]),
    ];
    client
        .session([request("order-7", None, records)])
        .await
        .unwrap();
    let tags = |event: &leftfold_model::RecordedEvent| {
        event.tags.iter().map(Tag::to_string).collect::<Vec<_>>()
    };
    let reported: Vec<_> = all(&*server.store).await.iter().map(tags).collect();
    assert_eq!(
        reported,
        [
            vec!["customer:1", "order:7"],
            vec!["order:7"],
            vec!["order:8"]
        ]
    );

    let item = QueryItem {
        types: vec![],
        tags: vec!["order:7".into()],
    };
    let read = ReadRequest {
        query: Some(Query { items: vec![item] }),
        ..ReadRequest::default()
    };
    let mut other = DcbClient::new(server.connect().await);
    let mut answers = other.read(read).await.unwrap().into_inner();
    let events = answers.message().await.unwrap().unwrap().events;
    let read = |event| SequencedEvent::decode(event).unwrap().position;
    let positions: Vec<_> = events.into_iter().map(read).collect();
    assert_eq!(positions, [1, 2]);
    drop(answers);
    server.stop().await;
}

#[tokio::test]
async fn a_record_that_says_too_little_or_nonsense_is_refused() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let changed = |change: &dyn Fn(&mut AppendRecord)| {
        let mut record = record("T");
        change(&mut record);
        record
    };
    let format = |record: &mut AppendRecord, number| {
        record.schema.as_mut().unwrap().format = number;
    };
    let cases = [
        (changed(&|r| r.schema = None), "names no schema"),
        (changed(&|r| format(r, 0)), "names no schema format"),
        (changed(&|r| format(r, 99)), "names no schema format"),
        (record(""), "EVENT_TYPE_BYTES_MAX"),
        (
            changed(&|r| r.record_id = Some("x".into())),
            "\"x\" is not a UUID",
        ),
        (
            with(&[("n", value(Kind::NumberValue(f64::NAN)))]),
            "property \"n\"",
        ),
        (
            with(&[("$tags", value(Kind::BoolValue(true)))]),
            "property $tags",
        ),
        (with(&[("$tags", text(&"t".repeat(256)))]), "TAG_BYTES_MAX"),
        (
            with(&[("long", text(&"x".repeat(limits::METADATA_BYTES_MAX)))]),
            "METADATA_BYTES_MAX",
        ),
    ];
    for (record, says) in cases {
        let refused = client
            .session([request("a", None, [record])])
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(says), "{refused:?}");
    }
    assert!(all(&*server.store).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_record_that_is_too_large_is_told_with_its_id_and_both_sizes() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let mut large = with_id(record("T"), 5);
    large.data = vec![b'x'; limits::DATA_BYTES_MAX].into();
    let refused = client
        .session([request("a", None, [large])])
        .await
        .unwrap_err();
    let reported: AppendRecordSizeExceededErrorDetails = detail(
        &refused,
        Code::InvalidArgument,
        "AppendRecordSizeExceededErrorDetails",
    );
    assert_eq!(reported.stream, "a");
    assert!(reported.record_id.ends_with("000000000005"));
    let max = i32::try_from(limits::DATA_BYTES_MAX).unwrap();
    assert_eq!(reported.max_size, max);
    assert!(reported.size > max);
    server.stop().await;
}
