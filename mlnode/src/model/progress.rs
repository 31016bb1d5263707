//! Lines in the log while something takes long.

use std::time::{Duration, Instant};

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(5);

/// How far some work over many bytes is. What is done within a few seconds says nothing.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    last: Instant,
}

impl Progress {
    /// Work that is called so.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, total: 0, done: 0, last: Instant::now() }
    }

    /// There are so many bytes more to do.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.total += bytes;
    }

    /// So many more are done.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if self.last.elapsed() >= INTERVAL {
            let percent = self.percent();
            tracing::info!(
                percent,
                done_mib = self.done >> 20,
                total_mib = self.total >> 20,
                "{}",
                self.what
            );
            self.last = Instant::now();
        }
    }

    fn percent(&self) -> u64 {
        self.done.saturating_mul(100).checked_div(self.total).unwrap_or(100).min(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_is_expected() {
        let mut progress = Progress::new("test");
        assert_eq!(progress.percent(), 100);
        progress.expect(150);
        progress.expect(50);
        progress.advance(50);
        assert_eq!(progress.percent(), 25);
        progress.advance(1_000);
        assert_eq!(progress.percent(), 100);
    }
}
