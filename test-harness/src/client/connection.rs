//! One connection to a proxy, over HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderValue};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::call::{Call, Cancel, Response};
use crate::body::{Body, scripted};

/// An open connection. Clones of one over HTTP/2 share it.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// How a call ended that was meant to be cut short, or not.
#[derive(Debug)]
pub enum Ended {
    /// The whole answer is there.
    Answered(Box<Response>),
    /// The client went away, as the call asked for; the status, when it was there by then.
    Cancelled(Option<u16>),
}

impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(address: SocketAddr, http2: bool) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        // A connection's own error also reaches the request that waits on it.
        let sender = if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Sender::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection.with_upgrades());
            Sender::One(sender)
        };
        Ok(Self { address, sender })
    }

    /// A second handle to this connection; only over HTTP/2.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::One(_) => None,
            Sender::Two(sender) => Some(Self { address: self.address, sender: Sender::Two(sender.clone()) }),
        }
    }

    /// True when another request can be sent.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => !sender.is_closed(),
            Sender::Two(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The connection broke, or the answer did; or the call was cancelled.
    pub async fn send(&mut self, call: Call) -> Result<Response> {
        match self.run(call).await? {
            Ended::Answered(response) => Ok(*response),
            Ended::Cancelled(_) => bail!("cancelled, as the call asked for"),
        }
    }

    /// Sends a request and goes away when the call says so. Over HTTP/1.1 the connection ends with it.
    ///
    /// # Errors
    /// The connection broke, or the answer did.
    pub async fn run(&mut self, call: Call) -> Result<Ended> {
        match call.cancel {
            Some(Cancel::After(time)) => {
                let end = Instant::now() + time;
                let mut status = None;
                match tokio::time::timeout_at(end, self.exchange(call, &mut status)).await {
                    Ok(ended) => ended,
                    Err(_) => Ok(Ended::Cancelled(status)),
                }
            }
            _ => self.exchange(call, &mut None).await,
        }
    }

    async fn exchange(&mut self, call: Call, status: &mut Option<u16>) -> Result<Ended> {
        let cancel = call.cancel;
        let response = self.start(call).await?;
        *status = Some(response.status().as_u16());
        let (head, mut body) = response.into_parts();
        if cancel == Some(Cancel::AtHeaders) {
            return Ok(Ended::Cancelled(*status));
        }
        let (mut bytes, mut trailers) = (BytesMut::new(), HeaderMap::new());
        while let Some(frame) = body.frame().await {
            match frame.context("the response broke off")?.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
            if let Some(Cancel::InBody(enough)) = cancel
                && bytes.len() >= enough
            {
                return Ok(Ended::Cancelled(*status));
            }
        }
        let (status, headers, body) = (head.status.as_u16(), head.headers, Bytes::from(bytes));
        Ok(Ended::Answered(Box::new(Response { status, headers, body, trailers })))
    }

    /// Sends a request and gives the response as soon as its headers are there.
    ///
    /// # Errors
    /// The connection broke before.
    pub async fn start(&mut self, call: Call) -> Result<hyper::Response<Incoming>> {
        let mut request = Request::new(scripted(call.body, ()));
        *request.method_mut() = call.method;
        *request.headers_mut() = call.headers;
        let response = match &mut self.sender {
            Sender::One(sender) => {
                *request.uri_mut() = call.path.parse().with_context(|| format!("not a path: {:?}", call.path))?;
                let host = HeaderValue::from_str(&self.address.to_string())?;
                request.headers_mut().entry(HOST).or_insert(host);
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                let host = request.headers_mut().remove(HOST);
                let authority = host.as_ref().map(HeaderValue::to_str).transpose()?.map(str::to_owned);
                let authority = authority.unwrap_or_else(|| self.address.to_string());
                *request.uri_mut() = format!("http://{authority}{}", call.path).parse()?;
                sender.ready().await?;
                sender.send_request(request).await
            }
        };
        response.context("no response")
    }
}

/// Sends the first half of the request's head on a connection of its own, and goes away.
pub(super) async fn cut_in_head(address: SocketAddr, call: &Call) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("{} {} HTTP/1.1\r\nhost: {address}\r\nx-cut", call.method, call.path);
    stream.write_all(head.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
