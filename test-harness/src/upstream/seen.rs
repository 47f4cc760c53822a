//! What the upstream saw: one record per request, in order of arrival.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::{HeaderMap, Method};

use crate::body::Finish;

/// One request as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its place in the order of arrival.
    pub index: usize,
    /// The connection it came on.
    pub connection: u64,
    /// Its method.
    pub method: Method,
    /// Its path with the query.
    pub path: String,
    /// Its headers as the proxy sent them.
    pub headers: HeaderMap,
    /// When it arrived, since the upstream was started.
    pub at: Duration,
    /// How many requests were there then, this one included.
    pub concurrent: usize,
    /// How it ended, and when.
    pub end: Option<(End, Duration)>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The whole answer was handed over.
    Completed(u16),
    /// The peer went away before that.
    Cancelled,
    /// The script broke off.
    Aborted,
}

/// The records of an upstream.
#[derive(Debug)]
pub(super) struct Book {
    start: Instant,
    keeps: bool,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    seen: Vec<Seen>,
    total: usize,
    concurrent: usize,
    max_concurrent: usize,
}

/// A request that is being served; dropped early, it counts as cancelled.
#[derive(Debug)]
pub(super) struct Ticket {
    book: Arc<Book>,
    index: usize,
    status: u16,
    end: End,
}

// === impl Seen ===

impl Seen {
    /// A header's first value, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// True when the peer went away before the answer was complete.
    pub fn cancelled(&self) -> bool {
        matches!(self.end, Some((End::Cancelled, _)))
    }
}

// === impl Book ===

impl Book {
    /// An empty book; one that does not keep records only counts.
    pub(super) fn new(keeps: bool) -> Self {
        Self { start: Instant::now(), keeps, pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arrive(
        self: &Arc<Self>,
        connection: u64,
        method: Method,
        path: String,
        headers: HeaderMap,
    ) -> Ticket {
        let at = self.start.elapsed();
        let mut pages = self.pages();
        pages.concurrent += 1;
        pages.max_concurrent = pages.max_concurrent.max(pages.concurrent);
        let (index, concurrent) = (pages.total, pages.concurrent);
        pages.total += 1;
        if self.keeps {
            pages.seen.push(Seen { index, connection, method, path, headers, at, concurrent, end: None });
        }
        Ticket { book: self.clone(), index, status: 0, end: End::Cancelled }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.pages().seen.clone()
    }

    pub(super) fn total(&self) -> usize {
        self.pages().total
    }

    pub(super) fn concurrent(&self) -> usize {
        self.pages().concurrent
    }

    pub(super) fn max_concurrent(&self) -> usize {
        self.pages().max_concurrent
    }

    pub(super) fn header_values(&self, name: &str) -> HashSet<String> {
        self.pages().seen.iter().filter_map(|seen| seen.header(name)).map(str::to_owned).collect()
    }
}

// === impl Ticket ===

impl Ticket {
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// The status that is being sent.
    pub(super) fn answers(&mut self, status: u16) {
        self.status = status;
    }
}

impl Finish for Ticket {
    fn finish(&mut self) {
        self.end = End::Completed(self.status);
    }

    fn abort(&mut self) {
        self.end = End::Aborted;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let at = self.book.start.elapsed();
        let mut pages = self.book.pages();
        pages.concurrent -= 1;
        if let Some(seen) = pages.seen.get_mut(self.index) {
            seen.end = Some((self.end, at));
        }
    }
}
