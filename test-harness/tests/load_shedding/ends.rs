//! What the end of one request does for those that wait, and what it must not do.

use std::net::Shutdown;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use socket2::SockRef;
use tidegate_harness::Gate;
use tidegate_harness::client::{Call, Cancel};
use tidegate_harness::envoy::Tidegate;
use tidegate_harness::upstream::Behaviour;
use tokio::net::TcpStream;

use crate::support::{Rig, volley_beside};
use crate::{fixed, listener, shedding, with_1_2_and_4_workers};

with_1_2_and_4_workers!(a_second_tidegate_that_rejects_all_who_go_on_does_not_exhaust_the_stack);

/// Room for one, and for many who wait.
fn one_place(order: &str) -> Value {
    let queue = json!({"max_length": 2000, "max_wait": "60s", "order": order});
    shedding(json!({"limit": fixed(1), "queue": queue}))
}

/// Whoever goes on is rejected by the next filter, within the resumption of the one before, which lets the next one go on.
/// The bound on how deep that nests began anew at the request headers of the second filter, which is of the same VM: it
/// ran out of stack, and all that waited there was lost.
async fn a_second_tidegate_that_rejects_all_who_go_on_does_not_exhaust_the_stack(workers: u32) {
    let requests = 400 * workers as usize;
    let second = json!({"policies": [{"name": "second", "rate_limits": [{"name": "one", "rate": "1/h"}]}]});
    let second = Tidegate::new(&second).unwrap().name("second");
    for rejects in [true, false] {
        let main = listener("first", &one_place("fifo"));
        let main = if rejects { main.filter(second.clone()) } else { main };
        let rig = Rig::with(workers, [main]).await;
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let all = volley_beside(rig.envoy.address("first"), requests, |_| Call::get("/"));
        rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], requests as u32 - 1).await;
        gate.open();
        let tally = all.await.unwrap().tally();
        println!("{workers} workers: {tally}");
        if rejects {
            assert_eq!((tally.admitted(), tally.rejected_by("second", "rate_limited")), (1, requests - 1), "{tally}");
        } else {
            // The control: they go upstream, one after the other.
            assert_eq!(tally.admitted(), requests, "{tally}");
        }
        rig.wait_for_idle("p").await;
        rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 0).await;
    }
}

/// A connection whose client is gone ends its requests one after the other, the newest first. The end of one in flight granted
/// the place to the next of the same connection, whose end was to be told right after; and so on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_away_does_not_grant_places_to_its_own_requests_that_wait() {
    const REQUESTS: u32 = 50;
    let rig = Rig::with(1, [listener("main", &one_place("lifo"))]).await;
    rig.upstream.always(Behaviour::never());
    let gate = Gate::new();
    rig.upstream.enqueue([Behaviour::respond(200).hold(&gate)]);
    let stream = TcpStream::connect(rig.main()).await.unwrap();
    let socket = SockRef::from(&stream).try_clone().unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answers = (0..REQUESTS).map(|_| {
        let request = Request::get(format!("http://{}/", rig.main())).body(Empty::<Bytes>::new()).unwrap();
        tokio::spawn(sender.clone().send_request(request))
    });
    let answers: Vec<_> = answers.collect();
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], REQUESTS - 1).await;
    // The newest goes on: all who wait are older.
    gate.open();
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], REQUESTS - 2).await;
    socket.shutdown(Shutdown::Both).unwrap();
    let mut answered = 0;
    for answer in answers {
        answered += u32::from(answer.await.unwrap().is_ok());
    }
    assert_eq!(answered, 1);
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 0).await;
    rig.wait_for_idle("p").await;
    assert_eq!(rig.decisions("p", "admitted").await, 2, "the others left before it was their turn");

    // The control: on connections of their own the place goes from one to the next.
    let impatient = |_| Call::get("/").cancel(Cancel::After(Duration::from_secs(2)));
    let patient = volley_beside(rig.main(), 1, impatient);
    rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], 1).await;
    let next = volley_beside(rig.main(), 1, |_| Call::get("/"));
    rig.wait_for_stat("tidegate_queue_length", &[("policy", "p")], 1).await;
    patient.await.unwrap();
    rig.wait_for_decisions("p", "admitted", 4).await;
    next.abort();
}
