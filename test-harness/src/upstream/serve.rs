//! The upstream's connections.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::behaviour::{Answer, Reply};
use super::seen::Ticket;
use super::{Asked, Behaviour, MARK, Shared, lock, model};
use crate::body::{Body, Finish, Step, scripted};

/// One connection's way to end itself.
#[derive(Default)]
struct Ending {
    reset: Notify,
    close: Notify,
}

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let id = shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(stream, id, shared.clone()));
            }
            // The peer is gone again, or there are no descriptors left: those come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn connection(stream: TcpStream, id: u64, shared: Arc<Shared>) {
    let mut epoch = shared.epoch.subscribe();
    // A second handle, for the socket's options while the connection owns the first.
    let Ok(handle) = SockRef::from(&stream).try_clone() else { return };
    let _ = stream.set_nodelay(true);
    let ending = Arc::new(Ending::default());
    let service = service_fn(|request| {
        let (shared, ending) = (shared.clone(), ending.clone());
        async move { serve(request, id, &shared, &ending).await }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A test may do to one connection what an ordinary server would call an attack.
    builder
        .http2()
        .max_concurrent_streams(None)
        .max_pending_accept_reset_streams(usize::MAX)
        .max_local_error_reset_streams(None);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let reset = tokio::select! {
        // First, so that what an ending follows is written out before the ending is noticed.
        biased;
        _ = serving => false,
        () = ending.close.notified() => false,
        () = ending.reset.notified() => true,
        _ = epoch.changed() => true,
    };
    if reset {
        let _ = handle.set_linger(Some(Duration::ZERO));
    }
}

async fn serve(
    request: Request<Incoming>,
    connection: u64,
    shared: &Arc<Shared>,
    ending: &Arc<Ending>,
) -> Result<Response<Body>, io::Error> {
    let (mut ticket, behaviour, model) = shared.receive(&request, connection);
    if let Some(model) = model {
        model.serve().await;
    }
    for step in behaviour.before {
        match step {
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Hold(gate) => gate.wait().await,
            Step::Data(_) | Step::Trailers(_) | Step::Abort => {}
        }
    }
    match behaviour.answer {
        Answer::Respond(reply) => respond(request, reply, ticket, ending).await,
        Answer::Echo => echo(request, ticket).await,
        Answer::Upgrade => Ok(upgrade(request, ticket)),
        Answer::Reset => {
            ticket.abort();
            // Over HTTP/2 the error resets this stream only.
            if request.version() != Version::HTTP_2 {
                ending.reset.notify_one();
                std::future::pending::<Infallible>().await;
            }
            Err(io::Error::new(io::ErrorKind::ConnectionReset, "the script resets the stream"))
        }
    }
}

impl Shared {
    /// Decides about a request, then counts it: whoever has seen that it is here may change what becomes of the next one,
    /// and of this one no more.
    fn receive(&self, request: &Request<Incoming>, connection: u64) -> (Ticket, Behaviour, Option<Arc<model::Server>>) {
        let (method, headers) = (request.method().clone(), request.headers().clone());
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        // One at a time, so that the number a script is told is the one that the request gets.
        let _turn = lock(&self.arriving);
        let behaviour = self.decide(request, self.book.total());
        let model = lock(&self.model).clone().filter(|_| behaviour.model);
        (self.book.arrive(connection, method, path, headers), behaviour, model)
    }

    fn decide(&self, request: &Request<Incoming>, index: usize) -> Behaviour {
        if let Some(failing) = lock(&self.failing).clone() {
            return failing;
        }
        if let Some(next) = lock(&self.queue).pop_front() {
            return next;
        }
        if let Some(asked_for) = Behaviour::asked_for(request.headers()) {
            return asked_for;
        }
        let script = lock(&self.script).clone();
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        script(&Asked { index, method: request.method(), path, headers: request.headers() })
    }
}

/// What a body tells when it ends: the records, and the connection when it is to end with it.
struct Answering {
    ticket: Ticket,
    ending: Arc<Ending>,
    close: bool,
    http1: bool,
}

impl Finish for Answering {
    fn finish(&mut self) {
        self.ticket.finish();
    }

    fn abort(&mut self) {
        self.ticket.abort();
        if self.http1 {
            self.ending.reset.notify_one();
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.close {
            self.ending.close.notify_one();
        }
    }
}

async fn respond(
    request: Request<Incoming>,
    reply: Reply,
    mut ticket: Ticket,
    ending: &Arc<Ending>,
) -> Result<Response<Body>, io::Error> {
    let index = ticket.index();
    let http1 = request.version() != Version::HTTP_2;
    if !reply.early {
        read(request).await?;
    }
    ticket.answers(reply.status);
    let answering = Answering { ticket, ending: ending.clone(), close: reply.close, http1 };
    let mut response = Response::new(scripted(reply.body, answering));
    *response.status_mut() = StatusCode::from_u16(reply.status).map_err(io::Error::other)?;
    *response.headers_mut() = reply.headers;
    response.headers_mut().insert(MARK, HeaderValue::from(index));
    Ok(response)
}

async fn echo(request: Request<Incoming>, mut ticket: Ticket) -> Result<Response<Body>, io::Error> {
    ticket.answers(200);
    let (index, kind) = (ticket.index(), request.headers().get(CONTENT_TYPE).cloned());
    let body = read(request).await?;
    let mut response = Response::new(scripted(vec![Step::Data(body)], ticket));
    response.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    response.headers_mut().insert(MARK, HeaderValue::from(index));
    Ok(response)
}

/// The upgraded connection counts as served while it lasts.
fn upgrade(mut request: Request<Incoming>, mut ticket: Ticket) -> Response<Body> {
    ticket.answers(101);
    let (index, protocol) = (ticket.index(), request.headers().get(UPGRADE).cloned());
    let mut response = Response::new(scripted(Vec::new(), ()));
    let Some(protocol) = protocol else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            // Ends when either side does.
            let _ = tokio::io::copy(&mut from, &mut to).await;
            ticket.finish();
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, protocol);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(MARK, HeaderValue::from(index));
    response
}

async fn read(request: Request<Incoming>) -> Result<Bytes, io::Error> {
    request.into_body().collect().await.map(http_body_util::Collected::to_bytes).map_err(io::Error::other)
}
