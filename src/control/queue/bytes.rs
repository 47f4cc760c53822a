//! What queues keep at a worker.

use std::collections::VecDeque;

use crate::control::Nanos;
use crate::control::counted::Counted;
use crate::share::Names;

use super::debts::Debt;
use super::{NUMBERS, Queue, Settings, Waiting};

/// What the allocator keeps beside a block.
const BLOCK: usize = 16;

impl Settings {
    /// How many bytes so many queues take at most, in each worker, once somebody has waited in all of them. Those who wait
    /// are not counted.
    pub fn bytes(&self, queues: u32) -> u64 {
        let levels = self.levels.max(1);
        let counted = if levels > 1 { levels.saturating_add(1) } else { 1 };
        // Levels are 16 at most and queues 65 537: nothing here comes near the most there is.
        let level = size_of::<VecDeque<Waiting>>() + size_of::<Nanos>() + size_of::<Debt>();
        let own = levels.saturating_mul(level).saturating_add(counted.saturating_mul(size_of::<Counted>()));
        let queue = size_of::<Queue>().saturating_add(own).saturating_add(BLOCK * 7 + NAME_BYTES * 2);
        let place = size_of::<Option<Box<Queue>>>() * 2;
        let names = wide(counted.saturating_mul(2).saturating_add(levels)).saturating_mul(Names::BYTES);
        let each = wide(queue.saturating_add(place)).saturating_add(names);
        let crowd = wide(size_of::<Option<Counted>>() * 2).saturating_add(2 * Names::BYTES);
        each.saturating_mul(queues.into()).saturating_add(crowd.saturating_mul(queues.min(NUMBERS).into()))
    }
}

/// About as long as the name of a queue is.
const NAME_BYTES: usize = 128;

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
