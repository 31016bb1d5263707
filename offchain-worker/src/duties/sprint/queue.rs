//! The queue of nonces that a host's ML nodes draw from.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
};

/// Hands out nonces in ascending chunks. What a node gives back goes out first: a hole would cut off all that follows.
#[derive(Debug, Default)]
pub(super) struct NonceQueue {
    next: u32,
    returned: VecDeque<Range<u32>>,
    done: BTreeSet<u32>,
}

impl NonceQueue {
    /// A queue that leaves out what is done already.
    pub(super) fn new(done: impl IntoIterator<Item = u32>) -> Self {
        Self { done: done.into_iter().collect(), ..Self::default() }
    }

    /// The next chunk, at most `size` nonces long and never empty.
    pub(super) fn take(&mut self, size: u32) -> Range<u32> {
        let size = size.max(1);
        if let Some(chunk) = self.returned.pop_front() {
            let end = chunk.end.min(chunk.start.saturating_add(size));
            if end < chunk.end {
                self.returned.push_front(end..chunk.end);
            }
            return chunk.start..end;
        }
        while self.done.contains(&self.next) {
            self.next = self.next.saturating_add(1);
        }
        let start = self.next;
        let limit = start.saturating_add(size);
        // The chunk ends before the next nonce that is done.
        let end = self.done.range(start..limit).next().copied().unwrap_or(limit);
        self.next = end;
        start..end
    }

    /// Notes that a nonce is done.
    pub(super) fn finish(&mut self, nonce: u32) {
        self.done.insert(nonce);
    }

    /// Takes a chunk back whose node broke off; only what is not done goes out again.
    pub(super) fn give_back(&mut self, chunk: Range<u32>) {
        let mut missing: Option<Range<u32>> = None;
        let mut back = Vec::new();
        for nonce in chunk {
            if self.done.contains(&nonce) {
                back.extend(missing.take());
                continue;
            }
            missing = Some(match missing {
                Some(range) => range.start..nonce.saturating_add(1),
                None => nonce..nonce.saturating_add(1),
            });
        }
        back.extend(missing);
        for range in back.into_iter().rev() {
            self.returned.push_front(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_done_is_not_handed_out_again() {
        let mut queue = NonceQueue::new([0, 1, 5]);
        assert_eq!(queue.take(10), 2..5);
        assert_eq!(queue.take(4), 6..10);
    }

    #[test]
    fn what_comes_back_goes_out_first_and_without_what_is_done() {
        let mut queue = NonceQueue::default();
        assert_eq!(queue.take(8), 0..8);
        queue.finish(2);
        queue.finish(3);
        queue.give_back(0..8);
        assert_eq!(queue.take(4), 0..2);
        assert_eq!(queue.take(3), 4..7);
        assert_eq!(queue.take(3), 7..8);
        assert_eq!(queue.take(3), 8..11);
    }

    proptest! {
        #[test]
        fn every_nonce_is_done_in_the_end(
            done in prop::collection::btree_set(0u32..200, 0..50),
            sizes in prop::collection::vec(1u32..40, 1..60),
            failures in prop::collection::vec(any::<bool>(), 60),
        ) {
            let mut queue = NonceQueue::new(done.iter().copied());
            let mut finished = done;
            let mut highest = 0;
            for (size, fails) in sizes.iter().zip(&failures) {
                let chunk = queue.take(*size);
                prop_assert!(!chunk.is_empty() && chunk.len() as u32 <= *size);
                prop_assert!(chunk.clone().all(|nonce| !finished.contains(&nonce)));
                highest = highest.max(chunk.end);
                if *fails {
                    queue.give_back(chunk);
                } else {
                    for nonce in chunk {
                        queue.finish(nonce);
                        finished.insert(nonce);
                    }
                }
            }
            loop {
                let chunk = queue.take(1);
                if chunk.start >= highest {
                    break;
                }
                queue.finish(chunk.start);
                finished.insert(chunk.start);
            }
            prop_assert!((0..highest).all(|nonce| finished.contains(&nonce)));
        }
    }
}
