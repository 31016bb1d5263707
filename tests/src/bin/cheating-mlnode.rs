//! `starling-mlnode` of a dishonest host. Takes the same configuration; `STARLING_CHEAT` says how it cheats.
//! For tests only.

use anyhow::Context;
use starling_e2e::{
    cheat::{Cheat, CheatingLoader, CHEAT},
    ml_node,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cheat: Cheat = std::env::var(CHEAT).with_context(|| format!("{CHEAT} is not set"))?.parse()?;
    ml_node::serve(CheatingLoader(cheat)).await
}
