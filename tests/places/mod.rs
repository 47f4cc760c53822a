//! The places of a limit that only one test asks for.

use tidegate::control::queue::Places;

/// So many places, and how many are taken.
pub struct Limit(pub i64, pub i64);

impl Places for Limit {
    type Place = ();

    fn free(&mut self, _: usize, places: i64) -> bool {
        self.1 + places <= self.0
    }

    fn enter(&mut self, level: usize) -> Option<()> {
        self.free(level, 1).then(|| self.1 += 1)
    }
}
