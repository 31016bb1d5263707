//! Tasks with an owner: nothing that was spawned outlives the agent.

use std::{future::Future, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A group of tasks. Cheap to clone; dropping a clone ends nothing.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Spawns a task that is dropped when the group is stopped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Number of tasks that run.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Stops all tasks now.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Gives the tasks until the deadline to end by themselves, then stops the others. True when all ended in time.
    pub async fn end(&self, deadline: Duration) -> bool {
        self.tracker.close();
        let in_time = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        self.stop.cancel();
        self.tracker.wait().await;
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_end_in_time_is_stopped() {
        let tasks = Tasks::default();
        tasks.spawn(std::future::pending());
        assert!(!tasks.end(Duration::from_millis(1)).await);
        let tasks = Tasks::default();
        tasks.spawn(async {});
        assert!(tasks.end(Duration::from_secs(5)).await);
    }
}
