//! The streams of a worker, and a stream's response as the engine asks for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::control::Nanos;
use crate::engine::{Engine, Permit, Stream};

use super::abi::{self, HeaderMapKind};
use super::arena::Callback;

/// One stream: the engine that decided about it, which a newer one may have replaced since, and what it holds.
pub struct Open {
    pub root: u32,
    pub engine: Rc<RefCell<Engine>>,
    pub permit: Permit,
    /// Until when it is held, if it is.
    pub waits_until: Option<Nanos>,
}

/// Something for each of some contexts.
pub type ByContext<T> = HashMap<u32, T, BuildHasherDefault<ContextHasher>>;

/// All open streams by context.
#[derive(Default)]
pub struct Streams {
    open: ByContext<Open>,
    /// Permits of streams that are gone, for their memory.
    spare: Vec<Permit>,
}

/// More spare permits than streams usually begin and end at once would be memory for nothing.
const SPARE: usize = 1024;

impl Streams {
    pub fn open(&mut self, context: u32, root: u32, engine: Rc<RefCell<Engine>>) {
        let permit = self.spare.pop().unwrap_or_default();
        self.open.insert(context, Open { root, engine, permit, waits_until: None });
    }

    pub fn get(&mut self, context: u32) -> Option<&mut Open> {
        self.open.get_mut(&context)
    }

    /// Forgets a stream; `false` if the context is none.
    pub fn close(&mut self, context: u32) -> bool {
        let Some(stream) = self.open.remove(&context) else { return false };
        if self.spare.len() < SPARE {
            self.spare.push(stream.permit);
        }
        true
    }
}

/// Contexts are numbered by the host, one after the other: spreading the bits is all they need.
#[derive(Default)]
pub struct ContextHasher(u64);

impl Hasher for ContextHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The current stream's response.
pub struct Response<'a>(pub &'a Callback);

const FLAGS: &[u8] = b"response\0flags";
const DETAILS: &[u8] = b"response\0code_details";

impl Stream for Response<'_> {
    fn response_header(&self, name: &str) -> Option<&[u8]> {
        self.0.header(HeaderMapKind::Response, name)
    }

    fn response_trailer(&self, name: &str) -> Option<&[u8]> {
        self.0.header(HeaderMapKind::ResponseTrailers, name)
    }

    fn add_response_header(&self, name: &str, value: &str) {
        // Refused only when the headers have gone already: then there is nobody to tell.
        let _ = abi::add_header(HeaderMapKind::Response, name, value);
    }

    fn flags(&self) -> u64 {
        self.0.property_u64(FLAGS).unwrap_or(0)
    }

    fn details(&self) -> Option<&[u8]> {
        self.0.property(DETAILS)
    }
}
