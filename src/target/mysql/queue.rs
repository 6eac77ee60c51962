//! Which connection loads which chunk next. Pure: it knows numbers only.
//!
//! Distinct tables come first, the largest before all, because two connections in one table wait for each other. When no table
//! is untouched, a free connection takes the back half of the longest run that another still has before it: each
//! connection thus writes in key order, which is what the storage engine is fastest at.
//!
//! Tables with a rank go before all that, in its order, and every connection that can help works on them. One that cannot help loads
//! others meanwhile.

use std::cmp::Reverse;
use std::collections::VecDeque;

/// What the queue must know of a table.
#[derive(Debug, Clone)]
pub(super) struct TableWork {
    /// Indexes of the chunks that are still to load, in key order.
    pub(super) pending: Vec<usize>,
    /// Plain bytes of every chunk of the table, by index.
    pub(super) bytes: Vec<u64>,
    /// Rows come back in the order they were in: one connection at a time (tables without a key, or without transactions).
    pub(super) sequential: bool,
    /// Its place among the tables that come before all others.
    pub(super) rank: Option<usize>,
}

/// What a connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Chunk {
        table: usize,
        chunk: usize,
    },
    /// All rows of the table are there: what comes after the rows may be done.
    Finish {
        table: usize,
    },
    /// Nothing now; another connection's chunk must end first.
    Wait,
    /// Nothing, and nothing will come.
    Nothing,
}

#[derive(Debug)]
struct Table {
    work: TableWork,
    /// Chunks not yet loaded, those in flight included.
    left: usize,
}

/// A connection's own stretch of one table.
#[derive(Debug, Default)]
struct Lane {
    table: usize,
    chunks: VecDeque<usize>,
}

#[derive(Debug)]
pub(super) struct Queue {
    tables: Vec<Table>,
    /// Tables that no connection has touched: the largest last, and behind them those with a rank.
    untouched: Vec<usize>,
    /// Tables whose rows are all there.
    full: Vec<usize>,
    /// Those of them that have a rank.
    full_first: Vec<usize>,
    lanes: Vec<Lane>,
}

impl Queue {
    pub(super) fn new(work: Vec<TableWork>, workers: usize) -> Self {
        let is_full = |index: &usize| work[*index].pending.is_empty();
        let (full, mut untouched): (Vec<_>, Vec<_>) = (0..work.len()).partition(is_full);
        let (full_first, full) = full.into_iter().partition(|index| work[*index].rank.is_some());
        untouched.sort_by_cached_key(|index| {
            let work = &work[*index];
            (work.rank.map(Reverse), size(&work.bytes, &work.pending))
        });
        let tables = work.into_iter().map(|work| Table { left: work.pending.len(), work }).collect();
        let lanes = (0..workers).map(|_| Lane::default()).collect();
        Self { tables, untouched, full, full_first, lanes }
    }

    /// Returns what a worker does next. A chunk that is given out must be reported by [`Queue::done`].
    pub(super) fn next(&mut self, worker: usize) -> Next {
        if let Some(table) = self.full_first.pop() {
            return Next::Finish { table };
        }
        if !self.helps_first(worker)
            && let Some(table) = self.full.pop()
        {
            return Next::Finish { table };
        }
        if !self.has_chunks(worker) && !self.take_any(worker) {
            let is_over = self.lanes.iter().all(|lane| lane.chunks.is_empty());
            return if is_over { Next::Nothing } else { Next::Wait };
        }
        let lane = &mut self.lanes[worker];
        let table = lane.table;
        lane.chunks.pop_front().map_or(Next::Wait, |chunk| Next::Chunk { table, chunk })
    }

    /// Notes that a chunk is committed.
    pub(super) fn done(&mut self, index: usize) {
        let table = &mut self.tables[index];
        table.left -= 1;
        if table.left == 0 {
            let full = if table.work.rank.is_some() { &mut self.full_first } else { &mut self.full };
            full.push(index);
        }
    }

    /// Gives a table up: no chunk of it is given out any more, and it is never finished.
    pub(super) fn fail(&mut self, index: usize) {
        for tables in [&mut self.untouched, &mut self.full, &mut self.full_first] {
            tables.retain(|other| *other != index);
        }
        // A chunk that another connection is at still ends; the failed one never does, so the table is never full.
        self.lanes.iter_mut().filter(|lane| lane.table == index).for_each(|lane| lane.chunks.clear());
    }

    /// Gives a worker a stretch of a table with a rank, if there is one that it can help with. None comes while it has one of another
    /// table: those with a rank only ever grow shorter.
    fn helps_first(&mut self, worker: usize) -> bool {
        if self.has_chunks(worker) { self.is_first(&self.lanes[worker]) } else { self.take_first(worker) }
    }

    fn take_first(&mut self, worker: usize) -> bool {
        if self.untouched.last().is_some_and(|table| self.tables[*table].work.rank.is_some()) {
            return self.take_table(worker);
        }
        self.take_half(worker, Self::is_first)
    }

    fn take_any(&mut self, worker: usize) -> bool {
        self.take_table(worker) || self.take_half(worker, |_, _| true)
    }

    fn take_table(&mut self, worker: usize) -> bool {
        let Some(table) = self.untouched.pop() else {
            return false;
        };
        let chunks = self.tables[table].work.pending.iter().copied().collect();
        self.lanes[worker] = Lane { table, chunks };
        true
    }

    /// Takes the back half of the longest stretch that another worker has before it, among those that are wanted.
    fn take_half(&mut self, worker: usize, is_wanted: impl Fn(&Self, &Lane) -> bool) -> bool {
        let lanes =
            (0..self.lanes.len()).filter(|other| self.may_share(*other) && is_wanted(self, &self.lanes[*other]));
        let Some(other) = lanes.max_by_key(|other| self.lane_bytes(*other)) else { return false };
        let lane = &mut self.lanes[other];
        let (table, keep) = (lane.table, lane.chunks.len() / 2);
        let chunks = lane.chunks.split_off(keep);
        self.lanes[worker] = Lane { table, chunks };
        true
    }

    fn has_chunks(&self, worker: usize) -> bool {
        !self.lanes[worker].chunks.is_empty()
    }

    fn is_first(&self, lane: &Lane) -> bool {
        self.tables.get(lane.table).is_some_and(|table| table.work.rank.is_some())
    }

    fn may_share(&self, worker: usize) -> bool {
        let lane = &self.lanes[worker];
        let may_share = |table: &Table| !table.work.sequential;
        !lane.chunks.is_empty() && self.tables.get(lane.table).is_some_and(may_share)
    }

    fn lane_bytes(&self, worker: usize) -> u64 {
        let lane = &self.lanes[worker];
        size(&self.tables[lane.table].work.bytes, &lane.chunks)
    }
}

fn size<'a>(bytes: &[u64], chunks: impl IntoIterator<Item = &'a usize>) -> u64 {
    chunks.into_iter().map(|chunk| bytes[*chunk]).sum()
}

#[cfg(test)]
mod tests;
