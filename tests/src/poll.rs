//! Waiting for a condition with a deadline: the tests' only way to wait.

use anyhow::{bail, Result};
use std::{future::Future, time::Duration};
use tokio::time::{sleep, Instant};

/// Between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks at a condition until it yields a value; fails with `what` and the last error after `limit`.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let last = match look().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            match last {
                Some(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
                None => bail!("waited {limit:?} for {what}"),
            }
        }
        sleep(INTERVAL).await;
    }
}
