//! What the tests of this folder share.

use super::limit::Bounds;
use crate::control::Random;

/// Always the same number.
pub struct Fixed(pub u64);

impl Random for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0
    }
}

/// Bounds in one line.
pub fn bounds(initial: u32, min: u32, max: u32) -> Bounds {
    Bounds { initial, min, max }
}
