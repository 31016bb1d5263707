//! `starling-mlnode` that takes at least ten milliseconds for each step. Takes the same configuration. For tests only.

use starling_e2e::{ml_node, slow::SlowLoader};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    ml_node::serve(SlowLoader).await
}
