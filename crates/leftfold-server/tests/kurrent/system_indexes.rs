//! Link streams that are computed: `$ce-`, `$et-`, `$bc-`, `$category-`, `$streams`.
//!
//! **Owns:** how they are read, subscribed to and shared by groups. **Does not know:** how they are computed.

use futures_util::TryStreamExt;
use leftfold_model::ExpectedRevision;
use leftfold_proto::event_store::client::{
    Empty,
    projections::{
        CreateReq, DisableReq, EnableReq, StatisticsReq, create_req, disable_req, enable_req,
        projections_client::ProjectionsClient, statistics_req,
    },
    streams::{
        read_req::{
            Options,
            options::{CountOption, StreamOption, StreamOptions, stream_options::RevisionOption},
        },
        read_resp::{Content, ReadEvent},
    },
};
use leftfold_store::Scavenge;
use tonic::Code;

use crate::{
    client::{
        TestClient, any, backwards, code_and_trailer, event, name, of_stream, read, subscribed,
        success,
    },
    test_server::TestServer,
};

/// Links as they are shown: revision in the index, data of the link, and the event it was resolved to.
fn shown(answers: &[Content]) -> Vec<(u64, String, Option<String>)> {
    let events = answers.iter().filter_map(|content| match content {
        Content::Event(event) => Some(read(event)),
        _ => None,
    });
    events.map(|event| entry(&event)).collect()
}

fn entry(event: &ReadEvent) -> (u64, String, Option<String>) {
    let link = event.link.as_ref().or(event.event.as_ref()).unwrap();
    let target = event.event.as_ref().filter(|_| event.link.is_some());
    let target = target.map(|target| {
        let stream = target.stream_identifier.as_ref().unwrap();
        format!(
            "{}@{}",
            target.stream_revision,
            String::from_utf8_lossy(&stream.stream_name)
        )
    });
    let data = String::from_utf8(link.data.to_vec()).unwrap();
    (link.stream_revision, data, target)
}

fn resolved(options: Options) -> Options {
    Options {
        resolve_links: true,
        ..options
    }
}

fn links(entries: &[(u64, String, Option<String>)]) -> Vec<&str> {
    entries.iter().map(|(_, link, _)| &**link).collect()
}

async fn filled(client: &TestClient) {
    client.put("account-1", &["Opened", "Closed"]).await;
    client.put("order-1", &["Opened"]).await;
    client.put("account-2", &["Opened"]).await;
    client.put("account", &["Opened"]).await;
    let mut correlated = event("Noted");
    correlated.custom_metadata = br#"{"$correlationId":"7"}"#.to_vec().into();
    let noted = client.append("note-1", any(), vec![correlated]).await;
    success(noted.unwrap());
}

#[tokio::test]
async fn each_index_is_read_in_both_directions_with_links_resolved_or_not() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    filled(&client).await;
    for (stream, expected) in [
        (
            "$ce-account",
            &["0@account-1", "1@account-1", "0@account-2"][..],
        ),
        (
            "$et-Opened",
            &["0@account-1", "0@order-1", "0@account-2", "0@account"],
        ),
        ("$category-account", &["0@account-1", "0@account-2"]),
        ("$bc-7", &["0@note-1"]),
        (
            "$streams",
            &[
                "0@account-1",
                "0@order-1",
                "0@account-2",
                "0@account",
                "0@note-1",
            ],
        ),
    ] {
        let plain = shown(&client.all(of_stream(stream)).await);
        assert_eq!(links(&plain), expected, "{stream}");
        assert!(plain.iter().all(|(_, _, target)| target.is_none()));
        let with_events = shown(&client.all(resolved(of_stream(stream))).await);
        for (_, link, target) in &with_events {
            assert_eq!(target.as_ref(), Some(link), "{stream}");
        }
        let mut reversed = shown(&client.all(backwards(resolved(of_stream(stream)))).await);
        reversed.reverse();
        assert_eq!(reversed, with_events, "{stream}");
        let revisions: Vec<_> = plain.iter().map(|(revision, ..)| *revision).collect();
        assert!(revisions.is_sorted() && revisions.len() == expected.len());
        // A read goes on at the revision of any entry.
        let from = Options {
            stream_option: Some(StreamOption::Stream(StreamOptions {
                stream_identifier: Some(name(stream)),
                revision_option: Some(RevisionOption::Revision(*revisions.last().unwrap())),
            })),
            count_option: Some(CountOption::Count(1)),
            ..of_stream(stream)
        };
        assert_eq!(
            shown(&client.all(from).await),
            [plain.last().unwrap().clone()]
        );
        let answers = client.all(of_stream(stream)).await;
        let last = answers.last().unwrap();
        assert_eq!(
            *last,
            Content::LastStreamPosition(*revisions.last().unwrap())
        );
    }
    for stream in ["$ce-nothing", "$et-Nothing", "$bc-8", "$ce-account-1"] {
        let answers = client.all(of_stream(stream)).await;
        assert!(
            matches!(answers[..], [Content::StreamNotFound(_)]),
            "{stream}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn an_index_is_followed_from_any_entry_on() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    filled(&client).await;
    let entries = shown(&client.all(of_stream("$ce-account")).await);
    let behind = Options {
        stream_option: Some(StreamOption::Stream(StreamOptions {
            stream_identifier: Some(name("$ce-account")),
            revision_option: Some(RevisionOption::Revision(entries[0].0)),
        })),
        ..resolved(of_stream("$ce-account"))
    };
    let mut answers = client.read(subscribed(behind)).await.unwrap();
    client.put("other-1", &["Opened"]).await;
    client.put("account-3", &["Opened"]).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match answers.message().await.unwrap().unwrap().content.unwrap() {
            Content::Event(event) => seen.push(entry(&read(&event))),
            Content::CaughtUp(caught_up) => {
                assert!(caught_up.stream_revision.is_some());
            }
            Content::Confirmation(_) => assert!(seen.is_empty()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(links(&seen), ["1@account-1", "0@account-2", "0@account-3"]);
    assert!(
        seen.iter()
            .all(|(_, link, target)| target.as_ref() == Some(link))
    );
    server.stop().await;
}

#[tokio::test]
async fn deletion_scavenge_and_recreation_leave_the_revisions_of_an_index_as_they_were() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    filled(&client).await;
    let before = shown(&client.all(of_stream("$ce-account")).await);
    let any = ExpectedRevision::Any;
    let stream = leftfold_model::StreamName::new("account-1").unwrap();
    let delete = leftfold_store::Delete::stream(stream, any);
    server.store.delete(delete).await.unwrap();
    let deleted = shown(&client.all(resolved(of_stream("$ce-account"))).await);
    let targets: Vec<_> = deleted
        .iter()
        .map(|(.., target)| target.is_some())
        .collect();
    assert_eq!(
        targets,
        [false, false, true],
        "a link leads to no deleted event"
    );
    client.put("account-1", &["Opened"]).await;
    let scavenged = server.store.scavenge(Scavenge::default());
    scavenged.try_collect::<Vec<_>>().await.unwrap();
    let after = shown(&client.all(resolved(of_stream("$ce-account"))).await);
    assert!(after.contains(&(before[2].0, before[2].1.clone(), Some(before[2].1.clone()))));
    assert_eq!(after.last().unwrap().1, "2@account-1");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_appended_to_is_no_index() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("imported-1", &["One"]).await;
    client.put("$ce-imported", &["Written"]).await;
    let answers = client.all(of_stream("$ce-imported")).await;
    assert_eq!(crate::client::types(&answers), ["Written"]);
    server.stop().await;
}

#[tokio::test]
async fn system_projections_are_told_as_they_are_and_those_of_users_are_refused_by_name() {
    let server = TestServer::start().await;
    let client = ProjectionsClient::new(server.connect().await);
    let statistics = |mode| StatisticsReq {
        options: Some(statistics_req::Options { mode: Some(mode) }),
    };
    let all = statistics(statistics_req::options::Mode::All(Empty {}));
    let told_of = client.clone().statistics(all).await.unwrap().into_inner();
    let names: Vec<_> = told_of
        .map_ok(|answer| answer.details.unwrap())
        .map_ok(|details| (details.name, details.status, details.progress))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(names.len(), 5);
    assert!(names.contains(&("$by_category".to_owned(), "Running".to_owned(), 100.0)));
    let enable = EnableReq {
        options: Some(enable_req::Options {
            name: "$by_category".into(),
        }),
    };
    client.clone().enable(enable).await.unwrap();
    let disable = |name: &str| DisableReq {
        options: Some(disable_req::Options {
            name: name.into(),
            write_checkpoint: false,
        }),
    };
    let refused = client
        .clone()
        .disable(disable("$by_category"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("$by_category"));
    let missing = client.clone().disable(disable("mine")).await.unwrap_err();
    assert_eq!(code_and_trailer(&missing, "exception").0, Code::NotFound);
    let create = CreateReq {
        options: Some(create_req::Options {
            mode: Some(create_req::options::Mode::Continuous(
                create_req::options::Continuous {
                    name: "mine".into(),
                    track_emitted_streams: false,
                },
            )),
            query: "fromAll()".into(),
            engine_version: 1,
        }),
    };
    let refused = client.clone().create(create).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("\"mine\""), "{refused:?}");
    server.stop().await;
}
