//! The Starling validator node. Everything is in the library, so that tests can call it.

#[allow(clippy::result_large_err, reason = "the SDK's error type")]
fn main() -> sc_cli::Result<()> {
    starling_node::run()
}
