//! Shared state in memory: one per test, or one per worker where the host shares nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Cell, Pages, ShareError, SharedState, Version};

/// Shared state in memory. Clones see the same state, as workers do.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    cell_names: HashMap<String, u32>,
    cells: Vec<i64>,
    page_names: HashMap<String, u32>,
    pages: Vec<Vec<(Vec<u8>, u32)>>,
}

impl Memory {
    /// Fresh state.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A holder that panicked (only in tests) leaves whole values behind: every change below is one assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn next_id(len: usize) -> Result<u32, ShareError> {
    u32::try_from(len).map_err(|_| ShareError::Unavailable)
}

impl SharedState for Memory {
    fn cell(&self, name: &str) -> Result<Cell, ShareError> {
        let mut inner = self.lock();
        if let Some(&id) = inner.cell_names.get(name) {
            return Ok(Cell(id));
        }
        let id = next_id(inner.cells.len())?;
        inner.cells.push(0);
        inner.cell_names.insert(name.to_owned(), id);
        Ok(Cell(id))
    }

    fn add(&self, cell: Cell, delta: i64) {
        if let Some(value) = self.lock().cells.get_mut(index(cell.0)) {
            *value = value.saturating_add(delta);
        }
    }

    fn read(&self, cell: Cell) -> i64 {
        self.lock().cells.get(index(cell.0)).copied().unwrap_or(0)
    }

    fn pages(&self, name: &str, count: u32, initial: &[u8]) -> Result<Pages, ShareError> {
        let mut inner = self.lock();
        if let Some(&id) = inner.page_names.get(name) {
            if let Some(row) = inner.pages.get_mut(index(id)) {
                let wanted = row.len().max(index(count));
                row.resize_with(wanted, || (initial.to_vec(), 1));
            }
            return Ok(Pages(id));
        }
        let id = next_id(inner.pages.len())?;
        inner.pages.push((0..count).map(|_| (initial.to_vec(), 1)).collect());
        inner.page_names.insert(name.to_owned(), id);
        Ok(Pages(id))
    }

    fn load(&self, pages: Pages, page: u32, into: &mut [u8]) -> Result<Version, ShareError> {
        let inner = self.lock();
        let row = inner.pages.get(index(pages.0)).ok_or(ShareError::Unavailable)?;
        let (bytes, version) = row.get(index(page)).ok_or(ShareError::Unavailable)?;
        if bytes.len() != into.len() {
            return Err(ShareError::Unavailable);
        }
        into.copy_from_slice(bytes);
        Ok(Version(*version))
    }

    fn store(&self, pages: Pages, page: u32, bytes: &[u8], expected: Version) -> Result<(), ShareError> {
        let mut inner = self.lock();
        let row = inner.pages.get_mut(index(pages.0)).ok_or(ShareError::Unavailable)?;
        let (old, version) = row.get_mut(index(page)).ok_or(ShareError::Unavailable)?;
        if *version != expected.0 {
            return Err(ShareError::Conflict);
        }
        if old.len() != bytes.len() {
            return Err(ShareError::Unavailable);
        }
        old.copy_from_slice(bytes);
        // The host counts versions from 1 and treats 0 as "whatever is there": skip it when the count wraps.
        *version = version.checked_add(1).unwrap_or(1);
        Ok(())
    }
}
