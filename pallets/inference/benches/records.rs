//! How many records a second the pallet takes: `start`, `finish` and `deliver` batches of full size on native
//! externalities, with everything real but the other pallets. Prints one JSON line per call.
//!
//! `cargo bench -p pallet-inference --bench records [-- BATCHES]`

#![allow(dead_code, missing_docs, reason = "the mock serves the tests, and only a part of it this benchmark")]

#[path = "../src/mock.rs"]
mod mock;

use mock::*;
use starling_primitives::{
    records::{Delivered, Finished, Started},
    AccountId,
};
use std::time::{Duration, Instant};

/// Items of a call: two `start` batches make one of the others.
const PER_START: u64 = 256;

/// The records of one block, as gateway and executors would send them.
struct BlockOfRecords {
    started: Vec<Vec<Started>>,
    finished: Vec<(AccountId, Vec<Finished>)>,
    delivered: Vec<Delivered>,
}

impl BlockOfRecords {
    fn new(block: u64) -> Self {
        let first = block * 2 * PER_START;
        let asks: Vec<Ask> =
            (first..first + 2 * PER_START).map(|n| Ask { max_price: 100, ..ask(n) }).collect();
        let of = |id: u8| {
            let own = asks.iter().filter(|ask| ask.executor() == host(id));
            (host(id), own.map(|ask| ask.finished(10, 20)).collect())
        };
        Self {
            started: asks
                .chunks(PER_START as usize)
                .map(|asks| asks.iter().map(Ask::started).collect())
                .collect(),
            finished: (1..=4).map(of).collect(),
            delivered: asks.iter().map(Ask::delivered).collect(),
        }
    }

    fn items(&self) -> u64 {
        self.delivered.len() as u64
    }
}

fn timed(total: &mut Duration, work: impl FnOnce()) {
    let begin = Instant::now();
    work();
    *total += begin.elapsed();
}

fn report(call: &str, items: u64, time: Duration) {
    let per_second = items as f64 / time.as_secs_f64();
    let micros = time.as_secs_f64() * 1e6 / items as f64;
    println!(
        r#"{{"bench":"records","backend":"native","call":"{call}","items":{items},"us_per_item":{micros:.1},"per_second":{per_second:.0}}}"#
    );
}

fn main() {
    // `cargo test` runs benches too, once and briefly; cargo itself passes `--bench`.
    let batches = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(4u64);
    let mut ext = ExtBuilder::default().deposit(900_000).build();
    let [mut start, mut finish, mut deliver, mut root] = [Duration::ZERO; 4];
    let mut items = 0;
    for batch in 0..batches {
        let block = ext.execute_with(|| {
            System::reset_events();
            BlockOfRecords::new(batch)
        });
        items += block.items();
        let gateway = host(1);
        ext.execute_with(|| {
            timed(&mut start, || block.started.into_iter().for_each(|items| start_as(&gateway, items)))
        });
        ext.execute_with(|| {
            timed(&mut finish, || {
                block.finished.into_iter().for_each(|(host, items)| finish_as(&host, items))
            });
        });
        ext.execute_with(|| {
            let items = block.delivered.try_into().unwrap_or_default();
            timed(&mut deliver, || assert!(Inference::deliver(worker(&gateway), items).is_ok()));
        });
        assert_eq!(ext.execute_with(last_refusal), None, "nothing is refused");
        timed(&mut root, || ext.commit_all().unwrap_or_default());
    }
    report("start", items, start);
    report("finish", items, finish);
    report("deliver", items, deliver);
    report("start+finish", items, start + finish);
    report("commit", items, root);
}
