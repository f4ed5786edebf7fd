//! Traces that a server sends, as a collector receives them.

use bytes::Bytes;
use tokio::{net::TcpListener, sync::mpsc};

use crate::served::Served;

/// Receives what is sent by OTLP over gRPC, and accepts all of it.
async fn collect(listener: TcpListener, received: mpsc::Sender<(String, Vec<u8>)>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let received = received.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let received = received.clone();
                tokio::spawn(async move {
                    let path = request.uri().path().to_owned();
                    let (mut body, mut bytes) = (request.into_body(), Vec::new());
                    while let Some(Ok(data)) = body.data().await {
                        let _ = body.flow_control().release_capacity(data.len());
                        bytes.extend_from_slice(&data);
                    }
                    // Before the response: the exporter may end as soon as it has that, and the test reads this then.
                    received.send((path, bytes)).await.unwrap();
                    let head = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(())
                        .unwrap();
                    let mut answer = respond.send_response(head, false).unwrap();
                    // An empty message: everything was accepted.
                    answer
                        .send_data(Bytes::from_static(&[0; 5]), false)
                        .unwrap();
                    let ok = http::HeaderMap::from_iter([(
                        "grpc-status".parse().unwrap(),
                        "0".parse().unwrap(),
                    )]);
                    answer.send_trailers(ok).unwrap();
                });
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_told_to_the_collector_as_a_part_of_its_callers_trace() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (received, mut spans) = mpsc::channel(16);
    tokio::spawn(collect(listener, received));
    let server = Served::with(&["--memory", "--otlp-endpoint", &endpoint]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\n");
    server.get("/api/v1/streams/secret-1/events", &parent);

    // What was not sent yet is sent when the server ends.
    let (code, said) = server.terminate();
    assert_eq!(code, Some(0), "{said}");
    let (path, sent) = spans.try_recv().expect("a trace was sent");
    assert_eq!(
        path,
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    );
    let holds = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
    let id: Vec<u8> = (0..trace.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&trace[at..at + 2], 16).unwrap())
        .collect();
    assert!(holds(&id) && holds(b"GET") && holds(b"leftfold"));
    assert!(
        !holds(b"secret-1"),
        "names of spans are bounded, and tell no names of streams"
    );
}
