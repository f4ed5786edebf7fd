//! Tokens on each wire: which are rejected, and why.

use super::*;

/// A way of each wire that needs a principal.
const WIRES: [&str; 5] = [
    "/event_store.client.streams.Streams/Read",
    "/kurrentdb.protocol.v2.streams.StreamsService/AppendRecords",
    "/umadb.v1.DCB/Head",
    "/leftfold.v1.Store/Head",
    "/api/v1/streams",
];

/// What is wrong with the tokens of the table, as their senders are told.
const REASONS: [(&str, &str); 8] = [
    ("token of another issuer", "issuer"),
    ("token for another audience", "audience"),
    ("expired token", "expired"),
    ("token by another key", "signature wrong"),
    ("token without signature", "algorithm not allowed"),
    (
        "token by HS256 with the public key",
        "algorithm not allowed",
    ),
    ("token of the future", "not valid yet"),
    ("token that is cut", "not a signed"),
];

/// Whether a request was rejected for its credentials, and the reason that it got.
async fn rejection(
    server: &Guarded,
    sender: &mut SendRequest<Full<Bytes>>,
    path: &str,
    credentials: &str,
) -> Option<String> {
    if path.starts_with("/api/") {
        let request = server.request(Method::GET, path, credentials);
        let request = request.body(Full::default()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let rejected = response.status() == StatusCode::UNAUTHORIZED;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        return rejected.then(|| String::from_utf8_lossy(&body).into_owned());
    }
    let request = server
        .request(Method::POST, path, credentials)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0])))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let code = response.headers().get("grpc-status")?;
    let message = response.headers().get("grpc-message");
    let message = message.map(|it| String::from_utf8_lossy(it.as_bytes()).replace("%20", " "));
    (Code::from_bytes(code.as_bytes()) == Code::Unauthenticated)
        .then(|| message.unwrap_or_default())
}

#[tokio::test]
async fn every_wire_takes_the_right_token_and_says_what_is_wrong_with_others() {
    for path in WIRES {
        // A new one each, for the limit on failures of an address.
        let server = Guarded::start().await;
        let mut sender = server.connect().await;
        for (credentials, reason) in REASONS {
            let rejected = rejection(&server, &mut sender, path, credentials).await;
            let text = rejected.unwrap_or_else(|| panic!("{path} takes the {credentials}"));
            assert!(text.contains(reason), "{path}, {credentials}: {text}");
        }
        for credentials in ["right token", "right token as a password"] {
            let rejected = rejection(&server, &mut sender, path, credentials).await;
            assert_eq!(rejected, None, "{path}, {credentials}");
        }
    }
}
