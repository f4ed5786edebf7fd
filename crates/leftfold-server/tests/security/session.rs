//! Appends of a session of the native protocol, on a server with users.
//!
//! **Owns:** who may append in a session. **Does not know:** how a session answers.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{TryStreamExt, stream};
use leftfold_proto::leftfold::v1::{
    AppendRequest, AppendsRequest, AppendsResponse, ContentType, NewEvent, NumberedAppend, Write,
    append_result::Outcome, store_client::StoreClient,
};
use leftfold_store::MemoryStore;
use tonic::Request;

use crate::{certificates::Authority, tls::TlsTestServer};

fn append(number: u64, stream: &str) -> NumberedAppend {
    let event = NewEvent {
        id_high: number,
        id_low: 7,
        r#type: "Noted".into(),
        content_type: ContentType::Json.into(),
        data: "{}".into(),
        ..NewEvent::default()
    };
    let write = Write {
        stream: stream.into(),
        expected: None,
        events: vec![event],
    };
    NumberedAppend {
        number,
        append: Some(AppendRequest {
            writes: vec![write],
            ..AppendRequest::default()
        }),
    }
}

#[tokio::test]
async fn appends_of_a_session_have_the_rights_of_the_user_who_began_it() {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    let server = TlsTestServer::start(Arc::new(MemoryStore::new()), &authority, &[]).await;
    let password = server.first_password.clone().unwrap();
    let channel = server.connect(&authority, None).await.unwrap();
    let appends = vec![append(1, "orders-1"), append(2, "orders-2")];
    let mut request = Request::new(stream::iter([AppendsRequest { appends }]));
    let value = format!("Basic {}", STANDARD.encode(format!("admin:{password}")));
    request
        .metadata_mut()
        .insert("authorization", value.parse().unwrap());
    let answers = StoreClient::new(channel).appends(request).await.unwrap();
    let answers: Vec<AppendsResponse> = answers.into_inner().try_collect().await.unwrap();
    let mut answers: Vec<_> = answers.into_iter().flat_map(|all| all.answers).collect();
    answers.sort_by_key(|answer| answer.number);
    let appended = |answer: usize| matches!(answers[answer].outcome, Some(Outcome::Appended(_)));
    assert!(appended(0) && appended(1), "{answers:?}");
}
