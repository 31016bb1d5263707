//! Whether a server that was asked for tokens gives any.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Counts what a server was asked for, and remembers since when it owes the next sign of life.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    state: Mutex<State>,
    suspicion: Notify,
}

#[derive(Debug, Default)]
struct State {
    asked: usize,
    owed_since: Option<Instant>,
    last_beat: Option<Instant>,
}

impl Pulse {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was asked for something; until the guard is dropped the answer is waited for.
    pub(super) fn ask(self: &Arc<Self>) -> Asked {
        let mut state = self.state();
        state.asked += 1;
        state.owed_since.get_or_insert_with(Instant::now);
        drop(state);
        Asked { pulse: Arc::clone(self), since: Instant::now() }
    }

    /// It gave a sign of life.
    pub(super) fn beat(&self) {
        let mut state = self.state();
        state.last_beat = Some(Instant::now());
        state.owed_since = state.last_beat.filter(|_| state.asked > 0);
    }

    /// How long it has owed a sign of life. Where nobody waits any more for the answer to a question after which no sign came, it is
    /// still owed: a server that hangs is found out by clients who give up one after another.
    pub(super) fn owed(&self) -> Duration {
        self.state().owed_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A question failed in a way that may mean that the server is gone.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Waits for a suspicion.
    pub(super) async fn suspected(&self) {
        self.suspicion.notified().await;
    }
}

/// An answer that is waited for.
#[derive(Debug)]
pub(super) struct Asked {
    pulse: Arc<Pulse>,
    since: Instant,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.pulse.state();
        state.asked -= 1;
        if state.asked == 0 && state.last_beat.is_some_and(|beat| beat >= self.since) {
            state.owed_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_owed_an_answer_even_if_nobody_waits() {
        let pulse = Arc::new(Pulse::default());
        assert_eq!(pulse.owed(), Duration::ZERO);
        let owes = || pulse.state().owed_since.is_some();
        let (first, second) = (pulse.ask(), pulse.ask());
        assert!(owes());
        drop(first);
        drop(second);
        assert!(owes(), "nobody waits, but no sign came");
        pulse.beat();
        assert!(!owes());
        let (first, second) = (pulse.ask(), pulse.ask());
        pulse.beat();
        assert!(owes(), "both are waited for");
        drop(first);
        assert!(owes());
        drop(second);
        assert!(!owes(), "a sign came after the question");
        assert_eq!(pulse.owed(), Duration::ZERO);
    }
}
