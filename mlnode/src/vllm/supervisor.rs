//! Starts a vLLM server or attaches to one, says when it writes tokens, and starts it again when it does not.

use super::{
    api::{Api, Failure},
    process::{Launch, Process},
    pulse::Pulse,
    Event, Events,
};
use crate::readiness::Readiness;
use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Time between two looks at a server that is starting, or that owes a sign of life.
const LOOK: Duration = Duration::from_millis(250);
/// Time before a server is started again for the first time, or an attached one is tried again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The waits double up to this.
const LAST_WAIT: Duration = Duration::from_secs(300);
/// A server that wrote tokens for so long was good: the next wait is the first again.
const GOOD_LIFE: Duration = Duration::from_secs(300);

/// Everything about one server, from start to start.
pub(super) struct Supervisor {
    /// How to reach it.
    pub(super) api: Api,
    /// How to start it; one that is attached to is only watched.
    pub(super) launch: Option<Launch>,
    /// From a start to the first token.
    pub(super) start_time: Duration,
    /// Without a token that is owed; and for the proof that there are any.
    pub(super) stalled_time: Duration,
    /// What it owes.
    pub(super) pulse: Arc<Pulse>,
    /// Told before work can meet a server that is not there.
    pub(super) readiness: Readiness,
    /// Where it says how it is.
    pub(super) events: Events,
    /// Ends all of it.
    pub(super) stop: CancellationToken,
    /// Since when there are tokens.
    pub(super) serving_since: Cell<Option<Instant>>,
}

impl Supervisor {
    /// Until it is stopped.
    pub(super) async fn run(self) {
        let mut waits = Waits::default();
        loop {
            self.serving_since.set(None);
            let (reason, lines) = match &self.launch {
                Some(launch) => self.run_process(launch).await,
                None => {
                    let reason = tokio::select! {
                        () = self.stop.cancelled() => return,
                        reason = self.watch() => reason,
                    };
                    (reason, Vec::new())
                }
            };
            if self.stop.is_cancelled() {
                return;
            }
            let wait = waits.next(self.serving_since.get().map_or(Duration::ZERO, |since| since.elapsed()));
            let what = if self.launch.is_some() { "is being started again" } else { "is not there" };
            self.readiness.refuse(format!("The vLLM server {what}; try again later, or another node."));
            tracing::error!(reason, again_in_seconds = wait.as_secs_f64(), "vLLM is down");
            self.events.send(Event::Down { reason, lines });
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// A process from its start to its end: why it ended, and the last lines of its output.
    async fn run_process(&self, launch: &Launch) -> (Failure, Vec<String>) {
        let mut process = match Process::start(launch) {
            Ok(process) => process,
            Err(error) => return (format!("cannot start {}: {error}", launch.python.display()), Vec::new()),
        };
        tracing::info!(process = process.id(), "vLLM was started");
        let reason = tokio::select! {
            () = self.stop.cancelled() => String::new(),
            status = process.ended() => match status {
                Ok(status) => format!("vLLM ended ({status})"),
                Err(error) => format!("vLLM cannot be waited for: {error}"),
            },
            reason = self.watch() => reason,
        };
        (reason, process.end().await)
    }

    /// Waits until the server writes tokens, says so, and returns when it does not any more.
    async fn watch(&self) -> Failure {
        let model = match tokio::time::timeout(self.start_time, self.first_token()).await {
            Ok(model) => model,
            Err(_) => return format!("vLLM wrote no token within {} s", self.start_time.as_secs()),
        };
        self.pulse.beat();
        self.serving_since.set(Some(Instant::now()));
        self.events.send(Event::Up { model: model.clone() });
        self.readiness.accept();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => if self.pulse.owed() < self.stalled_time { continue },
                () = self.pulse.suspected() => {}
            }
            let seconds = self.stalled_time.as_secs();
            match tokio::time::timeout(self.stalled_time, self.api.probe(&model)).await {
                Ok(Ok(())) => self.pulse.beat(),
                Ok(Err(failure)) => return format!("vLLM writes no tokens: {failure}"),
                Err(_) => return format!("vLLM wrote no token within {seconds} s"),
            }
        }
    }

    /// Waits for a token, and returns the name of the model that wrote it.
    async fn first_token(&self) -> String {
        loop {
            let token = async {
                let model = self.api.model().await?;
                self.api.probe(&model).await?;
                Ok::<_, Failure>(model)
            };
            match token.await {
                Ok(model) => return model,
                Err(failure) => tracing::debug!(failure, "vLLM writes no tokens yet"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How long to wait before the next start.
#[derive(Debug, Default)]
struct Waits(Option<Duration>);

impl Waits {
    /// After it has served for so long.
    fn next(&mut self, served: Duration) -> Duration {
        let last = self.0.filter(|_| served < GOOD_LIFE);
        let wait = last.map_or(FIRST_WAIT, |last| (last * 2).min(LAST_WAIT));
        self.0 = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_until_a_life_was_good() {
        let mut waits = Waits::default();
        let short = Duration::from_secs(20);
        let seconds: Vec<_> = (0..11).map(|_| waits.next(short).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(waits.next(GOOD_LIFE), FIRST_WAIT);
        assert_eq!(waits.next(short), 2 * FIRST_WAIT);
    }
}
