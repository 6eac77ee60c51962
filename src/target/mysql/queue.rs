//! Which connection loads which chunk next. Pure: it knows numbers only.
//!
//! Distinct tables come first, the largest before all, because two connections in one table wait for each other. When no table
//! is untouched, a free connection takes the back half of the longest run that another still has before it: each
//! connection thus writes in key order, which is what the storage engine is fastest at.

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
    /// The table holds no row yet. Its first chunk goes alone: MariaDB loads an empty table in bulk, under a table lock.
    pub(super) is_empty: bool,
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
    /// Chunks may be loaded beside each other.
    is_open: bool,
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
    /// Tables that no connection has touched, the largest last.
    untouched: Vec<usize>,
    /// Tables whose rows are all there.
    full: Vec<usize>,
    lanes: Vec<Lane>,
}

impl Queue {
    pub(super) fn new(work: Vec<TableWork>, workers: usize) -> Self {
        let is_full = |index: &usize| work[*index].pending.is_empty();
        let (full, mut untouched): (Vec<_>, Vec<_>) = (0..work.len()).partition(is_full);
        untouched.sort_by_key(|index| size(&work[*index].bytes, &work[*index].pending));
        let tables = work.into_iter().map(Table::new).collect();
        let lanes = (0..workers).map(|_| Lane::default()).collect();
        Self { tables, untouched, full, lanes }
    }

    /// Returns what a worker does next. A chunk that is given out must be reported by [`Queue::done`].
    pub(super) fn next(&mut self, worker: usize) -> Next {
        if let Some(table) = self.full.pop() {
            return Next::Finish { table };
        }
        if self.lanes[worker].chunks.is_empty() && !self.take_table(worker) && !self.take_half(worker) {
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
        table.is_open = true;
        if table.left == 0 {
            self.full.push(index);
        }
    }

    /// Gives a table up: no chunk of it is given out any more, and it is never finished.
    pub(super) fn fail(&mut self, index: usize) {
        self.untouched.retain(|other| *other != index);
        self.full.retain(|other| *other != index);
        // A chunk that another connection is at still ends; the failed one never does, so the table is never full.
        self.lanes.iter_mut().filter(|lane| lane.table == index).for_each(|lane| lane.chunks.clear());
    }

    fn take_table(&mut self, worker: usize) -> bool {
        let Some(table) = self.untouched.pop() else {
            return false;
        };
        let chunks = self.tables[table].work.pending.iter().copied().collect();
        self.lanes[worker] = Lane { table, chunks };
        true
    }

    fn take_half(&mut self, worker: usize) -> bool {
        let longest =
            (0..self.lanes.len()).filter(|other| self.may_share(*other)).max_by_key(|other| self.lane_bytes(*other));
        let Some(other) = longest else { return false };
        let lane = &mut self.lanes[other];
        let (table, keep) = (lane.table, lane.chunks.len() / 2);
        let chunks = lane.chunks.split_off(keep);
        self.lanes[worker] = Lane { table, chunks };
        true
    }

    fn may_share(&self, worker: usize) -> bool {
        let lane = &self.lanes[worker];
        let may_share = |table: &Table| table.is_open && !table.work.sequential;
        !lane.chunks.is_empty() && self.tables.get(lane.table).is_some_and(may_share)
    }

    fn lane_bytes(&self, worker: usize) -> u64 {
        let lane = &self.lanes[worker];
        size(&self.tables[lane.table].work.bytes, &lane.chunks)
    }
}

impl Table {
    fn new(work: TableWork) -> Self {
        let (left, is_open) = (work.pending.len(), !work.is_empty);
        Self { work, left, is_open }
    }
}

fn size<'a>(bytes: &[u64], chunks: impl IntoIterator<Item = &'a usize>) -> u64 {
    chunks.into_iter().map(|chunk| bytes[*chunk]).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(chunks: usize, sequential: bool) -> TableWork {
        TableWork { pending: (0..chunks).collect(), bytes: vec![10; chunks], sequential, is_empty: true }
    }

    fn chunk(table: usize, chunk: usize) -> Next {
        Next::Chunk { table, chunk }
    }

    #[test]
    fn distinct_tables_come_first_and_the_largest_before_all() {
        let mut queue = Queue::new(vec![table(1, false), table(3, false), table(2, false)], 3);
        assert_eq!(queue.next(0), chunk(1, 0));
        assert_eq!(queue.next(1), chunk(2, 0));
        assert_eq!(queue.next(2), chunk(0, 0));
    }

    #[test]
    fn the_first_chunk_of_an_empty_table_goes_alone_and_then_the_back_half_is_shared() {
        let mut queue = Queue::new(vec![table(5, false)], 2);
        assert_eq!(queue.next(0), chunk(0, 0));
        assert_eq!(queue.next(1), Next::Wait);
        queue.done(0);
        assert_eq!(queue.next(1), chunk(0, 3));
        assert_eq!(queue.next(0), chunk(0, 1));
    }

    #[test]
    fn rows_without_a_key_stay_with_one_connection() {
        let mut queue = Queue::new(vec![table(3, true)], 2);
        assert_eq!(queue.next(0), chunk(0, 0));
        queue.done(0);
        assert_eq!(queue.next(1), Next::Wait);
        assert_eq!(queue.next(0), chunk(0, 1));
    }

    #[test]
    fn a_table_is_finished_once_after_its_last_chunk() {
        let mut queue = Queue::new(vec![table(2, false), table(0, false)], 2);
        assert_eq!(queue.next(1), Next::Finish { table: 1 });
        assert_eq!(queue.next(0), chunk(0, 0));
        queue.done(0);
        assert_eq!(queue.next(1), chunk(0, 1));
        assert_eq!(queue.next(0), Next::Nothing);
        queue.done(0);
        assert_eq!(queue.next(1), Next::Finish { table: 0 });
        assert_eq!(queue.next(1), Next::Nothing);
    }

    #[test]
    fn a_table_that_is_given_up_gives_out_nothing_more_and_is_not_finished() {
        let mut queue = Queue::new(vec![table(1, false), table(9, false)], 2);
        assert_eq!(queue.next(0), chunk(1, 0));
        queue.done(1);
        assert_eq!(queue.next(0), chunk(1, 1));
        assert_eq!(queue.next(1), chunk(0, 0));
        queue.done(0);
        assert_eq!(queue.next(1), Next::Finish { table: 0 });
        assert_eq!(queue.next(1), chunk(1, 5));
        queue.fail(1);
        queue.done(1);
        assert_eq!((queue.next(0), queue.next(1)), (Next::Nothing, Next::Nothing));
    }

    #[test]
    fn a_table_that_was_never_made_is_not_touched() {
        let mut queue = Queue::new(vec![table(0, false), table(3, false)], 1);
        queue.fail(0);
        queue.fail(1);
        assert_eq!(queue.next(0), Next::Nothing);
    }

    #[test]
    fn every_chunk_is_given_out_exactly_once() {
        let shapes = [(7, false), (1, true), (30, false), (4, true), (0, false)];
        let work = shapes.map(|(chunks, sequential)| table(chunks, sequential)).to_vec();
        let mut queue = Queue::new(work, 4);
        let (mut given, mut finished, mut flying) = (Vec::new(), Vec::new(), VecDeque::new());
        loop {
            let mut is_idle = true;
            for worker in 0..4 {
                match queue.next(worker) {
                    Next::Chunk { table, chunk } => {
                        given.push((table, chunk));
                        flying.push_back(table);
                        is_idle = false;
                    }
                    Next::Finish { table } => finished.push(table),
                    Next::Wait | Next::Nothing => {}
                }
            }
            match flying.pop_front() {
                Some(table) => queue.done(table),
                None if is_idle => break,
                None => {}
            }
        }
        given.sort_unstable();
        finished.sort_unstable();
        let all: Vec<_> = shapes
            .iter()
            .enumerate()
            .flat_map(|(table, (chunks, _))| (0..*chunks).map(move |chunk| (table, chunk)))
            .collect();
        assert_eq!(given, all);
        assert_eq!(finished, [0, 1, 2, 3, 4]);
    }
}
