use super::*;

fn table(chunks: usize, sequential: bool) -> TableWork {
    TableWork { pending: (0..chunks).collect(), bytes: vec![10; chunks], sequential, rank: None }
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
fn a_free_connection_takes_the_back_half_of_what_another_has_before_it() {
    let mut queue = Queue::new(vec![table(5, false)], 2);
    assert_eq!(queue.next(0), chunk(0, 0));
    assert_eq!(queue.next(1), chunk(0, 3));
    assert_eq!(queue.next(0), chunk(0, 1));
}

fn ranked(chunks: usize, rank: usize) -> TableWork {
    TableWork { rank: Some(rank), ..table(chunks, false) }
}

#[test]
fn tables_with_a_rank_come_before_larger_ones_in_its_order() {
    let mut queue = Queue::new(vec![table(9, false), ranked(1, 1), ranked(3, 0), ranked(2, 1)], 4);
    let given: Vec<Next> = (0..4).map(|worker| queue.next(worker)).collect();
    // The fourth helps with one of them; none is at the largest table.
    assert_eq!(given, [chunk(2, 0), chunk(3, 0), chunk(1, 0), chunk(2, 2)]);
}

#[test]
fn every_connection_helps_with_a_table_with_a_rank_before_it_takes_another() {
    let mut queue = Queue::new(vec![table(4, false), ranked(4, 0)], 3);
    assert_eq!((queue.next(0), queue.next(1), queue.next(2)), (chunk(1, 0), chunk(1, 2), chunk(1, 3)));
    queue.done(1);
    assert_eq!(queue.next(1), chunk(1, 1));
    // Nothing of it is left to give out.
    queue.done(1);
    assert_eq!(queue.next(2), chunk(0, 0));
    queue.done(1);
    queue.done(1);
    assert_eq!(queue.next(2), Next::Finish { table: 1 });
}

#[test]
fn a_connection_that_cannot_help_with_a_table_with_a_rank_loads_another() {
    let rank = Some(0);
    let mut queue = Queue::new(vec![table(2, false), TableWork { rank, ..table(3, true) }], 2);
    assert_eq!((queue.next(0), queue.next(1)), (chunk(1, 0), chunk(0, 0)));
    queue.done(1);
    assert_eq!((queue.next(0), queue.next(1)), (chunk(1, 1), chunk(0, 1)));
}

#[test]
fn a_table_with_a_rank_is_finished_before_the_rows_of_others_go_on() {
    let mut queue = Queue::new(vec![table(0, false), table(0, false), ranked(1, 0), ranked(0, 1)], 1);
    assert_eq!(queue.next(0), Next::Finish { table: 3 });
    assert_eq!(queue.next(0), chunk(2, 0));
    queue.done(2);
    assert_eq!(queue.next(0), Next::Finish { table: 2 });
    assert_eq!((queue.next(0), queue.next(0)), (Next::Finish { table: 1 }, Next::Finish { table: 0 }));
    assert_eq!(queue.next(0), Next::Nothing);
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
    assert_eq!(queue.next(1), chunk(0, 1));
    queue.done(0);
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
    let shapes = [
        (7, false, None),
        (1, true, Some(1)),
        (30, false, None),
        (4, true, None),
        (0, false, Some(0)),
        (9, false, Some(0)),
    ];
    let work = shapes.map(|(chunks, sequential, rank)| TableWork { rank, ..table(chunks, sequential) }).to_vec();
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
        .flat_map(|(table, (chunks, ..))| (0..*chunks).map(move |chunk| (table, chunk)))
        .collect();
    assert_eq!(given, all);
    assert_eq!(finished, [0, 1, 2, 3, 4, 5]);
}
