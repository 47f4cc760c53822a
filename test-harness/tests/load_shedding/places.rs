//! Whose places they are, how long they are held, and who has no time to wait for one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;
use tidegate_harness::client::{self, Call, Connection};
use tidegate_harness::upstream::Behaviour;
use tidegate_harness::{Gate, Step};

use crate::support::{Rig, volley, volley_beside};
use crate::{fixed, listener, shedding, with_1_2_and_4_workers};

with_1_2_and_4_workers!(
    a_tenant_that_floods_takes_its_own_places_only,
    a_place_is_free_with_the_headers_or_at_the_end,
    who_cannot_be_answered_in_time_is_told_at_once,
);

async fn a_tenant_that_floods_takes_its_own_places_only(workers: u32) {
    let key = json!([{"header": "x-tenant"}]);
    let main = shedding(json!({"limit": fixed(5), "key": key, "max_keys": 2}));
    let control = shedding(json!({"limit": fixed(5)}));
    // Of two keys each has its own; those beyond, and who has none, share one.
    for (config, expected) in [(main, [5, 5, 5, 0]), (control, [5, 0, 0, 0])] {
        let rig = Rig::with(workers, [listener("main", &config)]).await;
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let (mut volleys, mut rejected) = (Vec::new(), 0);
        for (tenant, admitted) in ["a", "b", "c", "d"].into_iter().zip(expected) {
            volleys.push(volley_beside(rig.main(), 20, move |_| Call::get("/").header("x-tenant", tenant)));
            rejected += 20 - admitted;
            rig.wait_for_decisions("p", "overloaded", rejected).await;
        }
        rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], 80 - rejected).await;
        gate.open();
        for (volley, admitted) in volleys.into_iter().zip(expected) {
            assert_eq!(volley.await.unwrap().tally().admitted(), admitted as usize);
        }
        rig.wait_for_idle("p").await;
        assert_eq!(volley(rig.main(), 5, |_| Call::get("/").header("x-tenant", "a")).await.tally().admitted(), 5);
    }
}

async fn a_place_is_free_with_the_headers_or_at_the_end(workers: u32) {
    for release in ["headers", "end"] {
        let rig =
            Rig::with(workers, [listener("main", &shedding(json!({"limit": fixed(1), "release": release})))]).await;
        let gate = Gate::new();
        let stream = vec![Step::Data(Bytes::from_static(b"begun")), Step::Hold(gate.clone())];
        rig.upstream.always(Behaviour::respond(200).steps(stream));
        let begun = async || {
            let mut connection = Connection::open(rig.main(), false).await.unwrap();
            let response = connection.start(Call::get("/")).await.unwrap();
            (connection, response)
        };
        let (_first, mut response) = begun().await;
        assert_eq!(response.status(), 200);
        assert_eq!(&response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap()[..], b"begun");
        let (_second, another) = begun().await;
        assert_eq!(another.status(), if release == "headers" { 200 } else { 503 }, "{release}");
        gate.open();
        rig.wait_for_idle("p").await;
    }
}

async fn who_cannot_be_answered_in_time_is_told_at_once(workers: u32) {
    const TAKES: Duration = Duration::from_millis(200);
    let queue = json!({"max_length": 50, "max_wait": "30s", "order": "fifo"});
    for header in ["x-request-timeout-ms", "grpc-timeout"] {
        let with = shedding(json!({"limit": fixed(1), "queue": queue, "deadline": {"header": header}}));
        let without = shedding(json!({"limit": fixed(1), "queue": queue}));
        let rig = Rig::with(workers, [listener("main", &with), listener("control", &without)]).await;
        rig.upstream.always(Behaviour::respond(200).delay(TAKES));
        let call = |ms: u32| {
            let left = if header == "grpc-timeout" { format!("{ms}m") } else { ms.to_string() };
            Call::get("/").header(header, left)
        };
        // What requests usually take is learnt; it is not known how long a request takes on a busy machine.
        for _ in 0..15 {
            assert_eq!(client::send(rig.main(), call(60_000)).await.unwrap().status, 200);
        }
        let first = tokio::spawn(client::send(rig.main(), call(60_000)));
        rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], 1).await;
        let asked = Instant::now();
        let late = client::send(rig.main(), call(100)).await.unwrap();
        let took = asked.elapsed();
        assert_eq!((late.status, late.header("x-tidegate-reason")), (503, Some("overloaded;policy=p;cause=deadline")));
        println!("{workers} workers: told after {took:?} that 100 ms are not enough");
        assert!(took < TAKES, "{took:?}");
        assert_eq!(client::send(rig.main(), call(30_000)).await.unwrap().status, 200, "this one has time enough");
        assert_eq!(first.await.unwrap().unwrap().status, 200);

        // The control: it waits, and is served when nobody cares any more.
        let first = tokio::spawn(client::send(rig.control(), call(60_000)));
        rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], 1).await;
        let asked = Instant::now();
        assert_eq!(client::send(rig.control(), call(100)).await.unwrap().status, 200);
        assert!(asked.elapsed() > Duration::from_millis(100));
        assert_eq!(first.await.unwrap().unwrap().status, 200);
    }
}
