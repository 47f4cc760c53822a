//! Numbers by their names, without the names: of these there are many, and each is longer than all else that is kept of
//! a number.

use std::collections::HashMap;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::Cell;

/// What a name is known by. That two of a million names are alike happens once in 10^26 times.
type Digest = [u32; 4];

/// Which number has which name.
#[derive(Debug, Default)]
pub struct Names {
    cells: HashMap<Digest, Cell>,
}

impl Names {
    /// What one name takes at most, in bytes: when the table has just doubled, and is not half full.
    pub const BYTES: u64 = (size_of::<(Digest, Cell)>() as u64 + 1) * 16 / 7;

    /// The number of this name.
    ///
    /// # Errors
    /// Those of `open`, which is asked for a name that is new.
    pub fn get_or<E>(&mut self, name: &str, open: impl FnOnce() -> Result<Cell, E>) -> Result<Cell, E> {
        let digest = digest(name);
        if let Some(&cell) = self.cells.get(&digest) {
            return Ok(cell);
        }
        let cell = open()?;
        self.cells.insert(digest, cell);
        Ok(cell)
    }
}

fn digest(name: &str) -> Digest {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    let (first, second) = hasher.finish128().as_u64();
    let half = |word: u64| [(word >> 32) as u32, (word & u64::from(u32::MAX)) as u32];
    let ([a, b], [c, d]) = (half(first), half(second));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_opened_once_and_after_a_failure_again() {
        let mut names = Names::default();
        assert_eq!(names.get_or("a", || Err(7)), Err(7));
        assert_eq!(names.get_or("a", || Ok::<_, i32>(Cell(1))), Ok(Cell(1)));
        assert_eq!(names.get_or("a", || Err(7)), Ok(Cell(1)));
        assert_eq!(names.get_or("b", || Ok::<_, i32>(Cell(2))), Ok(Cell(2)));
    }

    #[test]
    fn names_that_differ_at_their_end_are_told_apart() {
        let mut names = Names::default();
        for number in 0..100_000 {
            let name = format!("a/limit/0123456789abcdef.{number}.worker.0");
            assert_eq!(names.get_or(&name, || Ok::<_, i32>(Cell(number))), Ok(Cell(number)));
        }
    }
}
