//! Room for keys and values, in tokens: counted before a sequence is admitted, so that memory never runs out in the
//! middle of a generation. No tensors here.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room of a node.
#[derive(Clone, Debug)]
pub struct KvRoom {
    free: Arc<Semaphore>,
    capacity: u32,
    /// What background work leaves free for requests.
    reserve: u32,
}

/// Room held by a sequence; given back when dropped.
#[derive(Debug)]
pub struct KvLease {
    _tokens: OwnedSemaphorePermit,
}

impl KvRoom {
    /// Room for so many tokens; a quarter of it is closed to background work.
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.min(u32::MAX >> 3);
        Self { free: Arc::new(Semaphore::new(capacity as usize)), capacity, reserve: capacity / 4 }
    }

    /// Takes room for a request, if there is enough.
    pub fn take(&self, tokens: u32) -> Option<KvLease> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(tokens).ok()?;
        Some(KvLease { _tokens: permit })
    }

    /// Takes room for background work, if enough stays free for requests.
    pub fn take_background(&self, tokens: u32) -> Option<KvLease> {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        if free < tokens.saturating_add(self.reserve) {
            return None;
        }
        self.take(tokens)
    }

    /// Whether background work of this size can ever run.
    pub fn fits_background(&self, tokens: u32) -> bool {
        tokens.saturating_add(self.reserve) <= self.capacity
    }

    /// Tokens in use.
    pub fn used(&self) -> u32 {
        self.capacity.saturating_sub(u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_back() {
        let room = KvRoom::new(100);
        let first = room.take(90).unwrap();
        assert!(room.take(11).is_none());
        assert_eq!(room.used(), 90);
        drop(first);
        assert!(room.take(100).is_some());
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn background_work_leaves_a_quarter() {
        let room = KvRoom::new(100);
        assert!(room.take_background(76).is_none());
        let lease = room.take_background(75).unwrap();
        assert!(room.take_background(1).is_none());
        assert!(room.take(25).is_some());
        drop(lease);
        assert!(room.fits_background(75) && !room.fits_background(76));
    }
}
