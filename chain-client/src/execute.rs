//! Sends one transaction and waits until it is in a block: for people at a terminal. Duty calls go through the
//! [`crate::Outbox`].

use crate::{
    call::Call,
    client::ChainClient,
    error::{ChainError, SubmitError},
    event::ChainEvent,
    keys::Keypair,
};
use starling_primitives::{BlockNumber, H256};
use std::collections::BTreeMap;

/// Blocks that [`ChainClient::execute`] waits for its transaction.
const BLOCKS: BlockNumber = 24;

impl ChainClient {
    /// Signs a call, submits it and waits until it is in a best block; its events, or why it failed.
    pub async fn execute(&self, call: &Call, signer: &Keypair) -> Result<Vec<ChainEvent>, SubmitError> {
        let mut ticks = self.subscribe_best();
        let mut search = Search { from: self.best_tick()?.number, searched: BTreeMap::new() };
        let nonce = self.next_nonce(&signer.account()).await?;
        let (hash, bytes) = self.sign(call, signer, nonce).await?;
        self.submit(&bytes).await?;
        let deadline = search.from.saturating_add(BLOCKS);
        while let Some(tick) = ticks.next().await {
            if let Some(events) = search.events_of(self, hash, tick.number).await? {
                return succeeded(events);
            }
            if tick.number > deadline {
                break;
            }
        }
        Err(SubmitError::Invalid(format!("the transaction {hash:?} was not included in {BLOCKS} blocks")))
    }
}

/// Looks for a transaction on a best chain that is reorganised meanwhile: a block that was searched may be replaced by one
/// that has it, and so may the block that was the best when it was sent.
struct Search {
    from: BlockNumber,
    searched: BTreeMap<BlockNumber, H256>,
}

impl Search {
    /// Events of the transaction, once it is in a block up to this height.
    async fn events_of(
        &mut self,
        chain: &ChainClient,
        transaction: H256,
        best: BlockNumber,
    ) -> Result<Option<Vec<ChainEvent>>, ChainError> {
        for number in (self.from..=best).rev() {
            let Some(block) = chain.block_hash(number).await? else { continue };
            // Whatever is below it was searched with it.
            if self.searched.insert(number, block) == Some(block) {
                break;
            }
            if let Some(events) = events_in(chain, transaction, block).await? {
                return Ok(Some(events));
            }
        }
        Ok(None)
    }
}

async fn events_in(
    chain: &ChainClient,
    transaction: H256,
    block: H256,
) -> Result<Option<Vec<ChainEvent>>, ChainError> {
    let view = chain.at(block);
    let hashes = view.transaction_hashes().await?;
    let Some(index) = hashes.iter().position(|hash| *hash == transaction) else { return Ok(None) };
    let index = u32::try_from(index).ok();
    let events = view.events().await?;
    Ok(Some(events.into_iter().filter(|(by, _)| *by == index).map(|(_, event)| event).collect()))
}

fn succeeded(events: Vec<ChainEvent>) -> Result<Vec<ChainEvent>, SubmitError> {
    let failed = events.iter().find_map(|event| match event {
        ChainEvent::ExtrinsicFailed { reason } => Some(reason.clone()),
        _ => None,
    });
    match failed {
        Some(reason) => Err(SubmitError::Invalid(reason)),
        None => Ok(events),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeChain;
    use std::sync::Arc;

    async fn sent(chain: &Arc<FakeChain>) -> tokio::task::JoinHandle<Result<Vec<ChainEvent>, SubmitError>> {
        let client = ChainClient::new(chain.clone());
        let sending = tokio::spawn(async move {
            client
                .execute(&Call::deposit(1), &Keypair::from_suri("//Alice").expect("a development key"))
                .await
        });
        while chain.submitted().is_empty() {
            tokio::task::yield_now().await;
        }
        sending
    }

    #[tokio::test]
    async fn a_transaction_in_the_next_block_is_found() {
        let chain = Arc::new(FakeChain::default());
        chain.advance_to(5);
        let sending = sent(&chain).await;
        chain.advance();
        sending.await.expect("no panic").expect("it is in block 6");
    }

    #[tokio::test]
    async fn a_transaction_is_found_in_the_block_that_replaced_the_best_one() {
        let chain = Arc::new(FakeChain::default());
        chain.advance_to(5);
        let sending = sent(&chain).await;
        chain.reorganise(1);
        assert_eq!(chain.advance().number, 5);
        chain.advance_to(40);
        sending.await.expect("no panic").expect("it is in the new block 5");
    }

    #[tokio::test]
    async fn a_transaction_that_was_lost_is_reported() {
        let chain = Arc::new(FakeChain::default());
        chain.advance_to(5);
        let sending = sent(&chain).await;
        chain.drop_pool();
        chain.advance_to(40);
        let error = sending.await.expect("no panic").expect_err("it is in no block");
        assert!(error.to_string().contains("was not included in 24 blocks"), "{error}");
    }
}
