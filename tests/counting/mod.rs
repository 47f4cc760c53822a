//! Shared state that counts.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::cell::{Cell as StdCell, RefCell};
use std::collections::{BTreeSet, HashMap};

use tidegate::share::{Cell, Memory, Pages, ShareError, SharedState, Version};

/// Shared state that counts what is asked of it, and can be told to fail.
#[derive(Default)]
pub struct Counting {
    pub memory: Memory,
    /// Numbers added to or read.
    pub numbers: StdCell<u32>,
    pub loads: StdCell<u32>,
    pub stores: StdCell<u32>,
    rows: RefCell<HashMap<String, u32>>,
    cells: RefCell<BTreeSet<String>>,
    pub fail_load: StdCell<Option<ShareError>>,
    pub fail_store: StdCell<Option<ShareError>>,
    /// Pages whose name ends so are refused.
    pub refused_pages: StdCell<Option<&'static str>>,
    /// Numbers whose name ends so are refused.
    pub refused_cells: StdCell<Option<&'static str>>,
}

impl Counting {
    /// Uses of numbers and of pages since this was last asked.
    pub fn take_calls(&self) -> (u32, u32) {
        (self.numbers.take(), self.loads.take() + self.stores.take())
    }

    /// How many pages there are.
    pub fn page_count(&self) -> u32 {
        self.rows.borrow().values().sum()
    }

    /// How many numbers there are.
    pub fn cell_count(&self) -> usize {
        self.cells.borrow().len()
    }

    /// The names of the numbers.
    pub fn cell_names(&self) -> BTreeSet<String> {
        self.cells.borrow().clone()
    }
}

impl SharedState for Counting {
    fn cell(&self, name: &str) -> Result<Cell, ShareError> {
        if self.refused_cells.get().is_some_and(|end| name.ends_with(end)) {
            return Err(ShareError::Unavailable);
        }
        self.cells.borrow_mut().insert(name.to_owned());
        self.memory.cell(name)
    }

    fn add(&self, cell: Cell, delta: i64) {
        self.numbers.set(self.numbers.get() + 1);
        self.memory.add(cell, delta);
    }

    fn read(&self, cell: Cell) -> i64 {
        self.numbers.set(self.numbers.get() + 1);
        self.memory.read(cell)
    }

    fn pages(&self, name: &str, count: u32, initial: &[u8]) -> Result<Pages, ShareError> {
        if self.refused_pages.get().is_some_and(|end| name.ends_with(end)) {
            return Err(ShareError::Unavailable);
        }
        let mut rows = self.rows.borrow_mut();
        let there = rows.entry(name.to_owned()).or_default();
        *there = count.max(*there);
        self.memory.pages(name, count, initial)
    }

    fn load(&self, pages: Pages, index: u32, into: &mut [u8]) -> Result<Version, ShareError> {
        self.loads.set(self.loads.get() + 1);
        self.fail_load.get().map_or_else(|| self.memory.load(pages, index, into), Err)
    }

    fn store(&self, pages: Pages, index: u32, bytes: &[u8], expected: Version) -> Result<(), ShareError> {
        self.stores.set(self.stores.get() + 1);
        self.fail_store.get().map_or_else(|| self.memory.store(pages, index, bytes, expected), Err)
    }
}
