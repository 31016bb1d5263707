//! `starling`: the client's side of Starling.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    starling_client::main().await
}
