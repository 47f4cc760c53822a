//! Circuit breakers through their public interface, over one and several workers.

mod fleet;
mod interleaving;
mod model;
mod open_time;
mod probes;
mod sharing;
mod trips;
