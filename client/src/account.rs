//! Money: deposits, delegations, and how things stand.

use crate::amount;
use anyhow::{Context, Result};
use starling_chain_client::{Call, ChainClient, Keypair};
use starling_primitives::{AccountId, Balance};

/// Deposits for inference.
pub async fn deposit(chain: &ChainClient, key: &Keypair, tokens: Balance) -> Result<()> {
    execute(chain, key, Call::Deposit { amount: tokens.into() }).await?;
    print_deposit(chain, &key.account()).await
}

/// Takes back what is free.
pub async fn withdraw(chain: &ChainClient, key: &Keypair, tokens: Balance) -> Result<()> {
    execute(chain, key, Call::Withdraw { amount: tokens.into() }).await?;
    print_deposit(chain, &key.account()).await
}

/// Lets `delegate` spend up to `limit` in all.
pub async fn delegate(
    chain: &ChainClient,
    key: &Keypair,
    delegate: &AccountId,
    limit: Balance,
) -> Result<()> {
    execute(chain, key, Call::Delegate { key: delegate.clone(), limit: limit.into() }).await?;
    println!("{delegate} may spend {} tokens", amount::format(limit));
    Ok(())
}

/// Takes a delegation back.
pub async fn revoke(chain: &ChainClient, key: &Keypair, delegate: &AccountId) -> Result<()> {
    execute(chain, key, Call::Revoke { key: delegate.clone() }).await?;
    println!("{delegate} may not spend any more");
    Ok(())
}

/// Prints the chain, the models, the hosts and, if there is one, the account.
pub async fn status(chain: &ChainClient, account: Option<AccountId>) -> Result<()> {
    let tick = chain.best_tick()?;
    let view = chain.at(tick.hash);
    println!("block        {} ({:?} of epoch {})", tick.number, tick.phase(), tick.epoch.index);
    for (id, profile) in view.profiles().await? {
        println!(
            "model        {} (profile {id}; {} per prompt token, {} per completion token)",
            profile.name_lossy(),
            amount::format(profile.prompt_price),
            amount::format(profile.completion_price),
        );
    }
    let weights = view.weights(tick.epoch.index).await?;
    for (host, info) in view.hosts().await? {
        let weight = weights.iter().find(|entry| entry.host == host).map_or(0, |entry| entry.weight);
        let url = info
            .endpoints
            .map(|endpoints| String::from_utf8_lossy(&endpoints.gateway_url).into_owned())
            .unwrap_or_default();
        println!("host         {host} {:?} weight {weight} {url}", info.status);
    }
    match account {
        Some(account) => print_deposit(chain, &account).await,
        None => Ok(()),
    }
}

async fn execute(chain: &ChainClient, key: &Keypair, call: Call) -> Result<()> {
    chain.execute(&call, key).await.context("the chain refused the transaction")?;
    Ok(())
}

async fn print_deposit(chain: &ChainClient, account: &AccountId) -> Result<()> {
    let view = chain.best()?;
    let deposit = view.deposit(account).await?;
    let balance = view.balance(account).await?;
    println!("account      {account}");
    println!("balance      {} tokens", amount::format(balance));
    println!(
        "deposit      {} tokens free, {} reserved",
        amount::format(deposit.free),
        amount::format(deposit.reserved)
    );
    Ok(())
}
