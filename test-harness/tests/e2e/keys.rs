//! Keys: what tells clients apart, each from its source in a real request.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Listener, Tidegate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::support::{Rig, main_listener};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(each_value_of_a_key_has_a_bucket_of_its_own, the_peer_is_the_client_unless_hops_are_trusted);

fn policy(name: &str, key: Value) -> Value {
    let limit = json!({"name": "one", "rate": "1/h", "key": key});
    json!({"name": name, "match": {"path": {"prefix": format!("/{name}")}}, "rate_limits": [limit]})
}

async fn each_value_of_a_key_has_a_bucket_of_its_own(workers: u32) {
    let tenant = ["metadata", "filter_metadata", "tenants", "tenant"];
    let config = json!({"policies": [
        policy("header", json!([{"header": "x-api-key"}])),
        policy("query", json!([{"query": "user"}])),
        policy("cookie", json!([{"cookie": "sid"}])),
        policy("segment", json!([{"path_segment": 1}])),
        policy("method", json!([{"attribute": "method"}])),
        policy("path", json!([{"attribute": "path"}])),
        policy("host", json!([{"attribute": "host"}])),
        policy("property", json!([{"property": tenant}])),
        policy("two", json!([{"header": "x-a"}, {"header": "x-b"}])),
        policy("none", json!([])),
    ]});
    // Envoy's own filter before Tidegate makes metadata of a header.
    let metadata = json!({
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config",
            "request_rules": [{
                "header": "x-tenant",
                "on_header_present": {"metadata_namespace": "tenants", "key": "tenant", "type": "STRING"}
            }]
        }
    });
    let rig =
        Rig::with(workers, [Listener::new("main").filter(metadata).filter(Tidegate::new(&config).unwrap())]).await;
    let get = Call::get;
    let cases = [
        (get("/header").header("x-api-key", "a"), get("/header").header("x-api-key", "b")),
        (get("/query?x=1&user=a"), get("/query?user=b")),
        (get("/cookie").header("cookie", "x=1; sid=a"), get("/cookie").header("cookie", "sid=b; y=a")),
        (get("/segment/a/x"), get("/segment/b/x")),
        (get("/method"), Call::new("POST", "/method")),
        (get("/path/a"), get("/path/b")),
        (get("/host").header("host", "a.test"), get("/host").header("host", "b.test")),
        (get("/property").header("x-tenant", "a"), get("/property").header("x-tenant", "b")),
        (get("/two").header("x-a", "1").header("x-b", "23"), get("/two").header("x-a", "12").header("x-b", "3")),
    ];
    let status = async |call: &Call| client::send(rig.main(), call.clone()).await.unwrap().status;
    for (one, other) in &cases {
        let statuses = [status(one).await, status(one).await, status(other).await, status(other).await];
        assert_eq!(statuses, [200, 429, 200, 429], "{one:?}, {other:?}");
    }
    // The controls: a request without the key is not limited, and without a key all are one.
    assert_eq!([status(&get("/header")).await, status(&get("/header")).await], [200, 200]);
    let calls = [get("/none").header("x-api-key", "a"), get("/none").header("x-api-key", "b")];
    assert_eq!([status(&calls[0]).await, status(&calls[1]).await], [200, 429]);
}

async fn the_peer_is_the_client_unless_hops_are_trusted(workers: u32) {
    let ip = |settings: Value| json!([{"client_ip": settings}]);
    let config = json!({"policies": [
        policy("peer", ip(json!({}))),
        policy("hop1", ip(json!({"trusted_hops": 1}))),
        policy("hop2", ip(json!({"trusted_hops": 2}))),
        policy("net", ip(json!({"trusted_hops": 1, "ipv4_prefix": 24}))),
    ]});
    // Unless it uses the connection's address Envoy itself takes the header's last entry for the peer's.
    let edge = Listener::new("edge").filter(Tidegate::new(&config).unwrap().name("edge"));
    let rig = Rig::with(workers, [main_listener(&config), edge.raw(json!({"use_remote_address": true}))]).await;
    let edge = rig.envoy.address("edge");
    // A header anybody can write does not make another client.
    assert_eq!(status_from(edge, "127.0.0.1", "/peer", "1.1.1.1").await, 200);
    assert_eq!(status_from(edge, "127.0.0.1", "/peer", "2.2.2.2").await, 429);
    assert_eq!(status_from(edge, "127.0.0.2", "/peer", "1.1.1.1").await, 200);
    // There Envoy has added the peer to the header before Tidegate reads it.
    assert_eq!(status_from(edge, "127.0.0.1", "/hop1", "1.1.1.1").await, 200);
    assert_eq!(status_from(edge, "127.0.0.1", "/hop1", "2.2.2.2").await, 429);
    assert_eq!(status_from(edge, "127.0.0.1", "/hop2", "1.1.1.1").await, 200);
    assert_eq!(status_from(edge, "127.0.0.2", "/hop2", "1.1.1.1").await, 429);
    assert_eq!(status_from(edge, "127.0.0.1", "/hop2", "2.2.2.2").await, 200);
    let status = async |path: &str, from: &str, forwarded: &str| status_from(rig.main(), from, path, forwarded).await;
    // With a trusted hop the header's last entry does, and the entries before it do not.
    assert_eq!(status("/hop1", "127.0.0.1", "9.9.9.9, 1.1.1.1").await, 200);
    assert_eq!(status("/hop1", "127.0.0.2", "8.8.8.8, 1.1.1.1").await, 429);
    assert_eq!(status("/hop1", "127.0.0.1", "9.9.9.9, 2.2.2.2").await, 200);
    assert_eq!(status("/hop2", "127.0.0.1", "1.1.1.1, 3.3.3.3").await, 200);
    assert_eq!(status("/hop2", "127.0.0.1", "1.1.1.1, 4.4.4.4").await, 429);
    assert_eq!(status("/net", "127.0.0.1", "1.1.1.1").await, 200);
    assert_eq!(status("/net", "127.0.0.1", "1.1.1.200").await, 429);
    assert_eq!(status("/net", "127.0.0.1", "1.1.2.1").await, 200);
}

/// Asks from this address of the machine's own, with this `x-forwarded-for`.
async fn status_from(at: SocketAddr, from: &str, path: &str, forwarded: &str) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    let mut stream = socket.connect(at).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {forwarded}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
