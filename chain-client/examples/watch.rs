//! Prints what a chain does, block by block: `watch ws://127.0.0.1:9944 [BLOCKS]`.

use starling_chain_client::{ChainClient, ChainEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:9944".into());
    let blocks: u32 = arguments.next().map_or(Ok(u32::MAX), |blocks| blocks.parse())?;
    let chain = ChainClient::connect(&url).await?;
    println!("genesis {:?}", chain.genesis());
    let mut ticks = chain.subscribe_best();
    for _ in 0..blocks {
        let Some(tick) = ticks.next().await else { break };
        let finalized = chain.finalized_tick()?.number;
        println!("#{} epoch {} {:?} finalized #{finalized}", tick.number, tick.epoch.index, tick.phase());
        for (extrinsic, event) in chain.at(tick.hash).events().await? {
            if event != ChainEvent::Other {
                println!("    {extrinsic:?} {event:?}");
            }
        }
    }
    Ok(())
}
