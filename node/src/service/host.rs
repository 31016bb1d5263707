//! The host agent inside the node's process.

use sc_service::TaskManager;
use std::path::PathBuf;

/// Runs the agent. Essential: an operator who put both in one process wants to see it when one of them ends.
pub fn spawn_host(tasks: &TaskManager, config: PathBuf) {
    let agent = async move {
        // Dropping the task manager ends the task, and with it the agent.
        if let Err(error) = starling_host::run(config, std::future::pending()).await {
            tracing::error!(target: "host", %error, "the host agent ended");
        }
    };
    tasks.spawn_essential_handle().spawn("starling-host", Some("host"), agent);
}
