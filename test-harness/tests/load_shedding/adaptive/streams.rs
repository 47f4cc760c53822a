//! Streams that are open all the while: websockets, server-sent events and gRPC. They hold places and no slot of the
//! upstream, and are not the queue.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};
use tidegate_harness::client::Connection;
use tidegate_harness::envoy::{Builder, Cluster, Route};
use tidegate_harness::upstream::{Asked, Behaviour};
use tidegate_harness::{Gate, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

with_1_2_and_4_workers!(alone: an_overload_beside_open_streams_is_one_of_the_other_requests,);

/// Three knees of 10 slots.
const STREAMS: u32 = 30;

/// An open stream, at its client.
enum Stream {
    Websocket(TcpStream),
    /// Server-sent events or a gRPC stream; with their connection.
    Response(Connection, Response<Incoming>),
}

impl Stream {
    /// In turn one of each kind.
    async fn open(rig: &Rig, listener: &str, number: u32) -> Self {
        let at = rig.envoy.address(listener);
        let (call, http2) = match number % 3 {
            0 => {
                let mut stream = TcpStream::connect(at).await.unwrap();
                let head = b"GET /socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                stream.write_all(head).await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\n") {
                    answer.push(stream.read_u8().await.unwrap());
                }
                assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
                return Self::Websocket(stream);
            }
            1 => (Call::get("/events"), false),
            _ => (Call::grpc("/grpc.Streams/Watch", b"all"), true),
        };
        let mut connection = Connection::open(at, http2).await.unwrap();
        let response = connection.start(call).await.unwrap();
        assert_eq!(response.status(), 200);
        Self::Response(connection, response)
    }

    /// All is as it was: a websocket carries bytes both ways, a response goes on to its end now that it may.
    async fn end(self) {
        match self {
            Self::Websocket(mut stream) => {
                stream.write_all(b"echo").await.unwrap();
                let mut echo = [0; 4];
                stream.read_exact(&mut echo).await.unwrap();
                assert_eq!(&echo, b"echo");
            }
            Self::Response(connection, response) => {
                let body = response.into_body().collect().await.expect("the stream was cut").to_bytes();
                assert!(body.ends_with(b"end"), "{}", String::from_utf8_lossy(&body));
                drop(connection);
            }
        }
    }
}

/// What the upstream does with streams, which say something every second for so long and end when the gate is open, and with all
/// others.
fn script(gate: &Gate, lasts: Duration) -> impl Fn(&Asked<'_>) -> Behaviour + use<> {
    let say = |word: &'static [u8]| Step::Data(Bytes::from_static(word));
    let goes_on = std::iter::repeat_n([say(b"more"), Step::Pause(SECOND)], lasts.as_secs() as usize).flatten();
    let events: Vec<_> = goes_on.chain([Step::Hold(gate.clone()), say(b"end")]).collect();
    let status = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from(0))]);
    let messages: Vec<_> = events.iter().cloned().chain([Step::Trailers(status)]).collect();
    move |asked| match asked.path {
        "/socket" => Behaviour::upgrade().outside_model(),
        "/events" => Behaviour::respond(200).steps(events.clone()).outside_model(),
        "/grpc.Streams/Watch" => {
            let response = Behaviour::respond(200).header("content-type", "application/grpc");
            response.steps(messages.clone()).outside_model()
        }
        _ => stalls::script(asked),
    }
}

fn listeners() -> impl Iterator<Item = Listener> {
    let fixed = json!({"limit": crate::fixed(STREAMS)});
    let with = |(name, settings)| {
        let route = |prefix, cluster| Route::prefix(prefix, cluster).timeout("0s");
        let listener = listener(name, &shedding(settings)).upgrade("websocket");
        listener.route(route("/grpc", "grpc")).route(route("/", "upstream"))
    };
    [("main", json!({})), ("control", fixed)].into_iter().map(with)
}

/// Three knees were fewer than the streams: the limit went below their number, and nobody was admitted again.
async fn an_overload_beside_open_streams_is_one_of_the_other_requests(workers: u32) {
    let rig = Rig::built(workers, |builder, upstream| {
        let builder = builder.cluster(Cluster::new("upstream", upstream.address()));
        let builder = builder.cluster(Cluster::new("grpc", upstream.address()).http2());
        listeners().fold(builder, Builder::listener)
    })
    .await;
    let bystander = Bystander::beside(&rig).await;
    let (overload, calm, end) = (2 * SECOND, 7 * SECOND, 11 * SECOND);
    let whole = Schedule::constant(CALM, overload).then(OFFERED, calm - overload).then(CALM, end - calm).poisson();
    let short = Schedule::constant(OFFERED, SECOND).poisson();
    for (name, schedule, lasts) in [("main", whole, end), ("control", short, SECOND)] {
        let gate = Gate::new();
        rig.upstream.script(script(&gate, lasts));
        rig.upstream.model(Some(model(SLOTS)));
        let mut streams = Vec::new();
        for number in 0..STREAMS {
            streams.push(Stream::open(&rig, name, number).await);
        }
        rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], STREAMS).await;
        let measured = Measured::new(&bystander, load(&rig, name, schedule), lasts).await;
        rig.wait_for_stat("tidegate_inflight", &[("policy", "p")], STREAMS).await;
        if name == "control" {
            // The streams have all the places that the other requests would need.
            assert_eq!(measured.goodput(Duration::ZERO..lasts, OFFERED), 0.0);
        } else {
            let (settled, after) = (overload + SECOND..calm, calm + 2 * SECOND..end);
            let goodput = measured.goodput(settled.clone(), model(SLOTS).capacity());
            let p99 = measured.p99(settled.clone(), |outcome| outcome.ending == Ending::Answered(200));
            let unfair = [Duration::ZERO..overload, after].map(|time| measured.unfair(time));
            let report = format!(
                "{workers} workers: {:.1} % of capacity from one second after the overload began on, {:.1} % in all of it, p99 {p99:.0} ms, \
                 {unfair:?} rejected before and after; machine stood {:?}",
                100.0 * goodput,
                100.0 * measured.goodput(overload..calm, model(SLOTS).capacity()),
                measured.stood()
            );
            println!("{report}");
            assert!(goodput >= 0.95 * measured.possible(settled), "{report}");
            assert!(p99 < 150.0, "{report}");
            assert_eq!(unfair, [0, 0], "{report}");
        }
        gate.open();
        for stream in streams {
            stream.end().await;
        }
        rig.wait_for_idle("p").await;
    }
}
