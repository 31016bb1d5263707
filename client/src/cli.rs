//! The command line.

use crate::{
    account, amount, chat, gateways::Gateways, models::Models, proxy, receipt::SavedReceipt,
    signer::RequestSigner,
};
use anyhow::{bail, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};
use starling_chain_client::{ChainClient, Keypair};
use starling_primitives::{AccountId, Balance};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The client's side of Starling: an OpenAI API on localhost, deposits, and receipts that prove answers.
#[derive(Debug, Parser)]
#[command(name = "starling", version)]
pub(crate) struct Cli {
    /// WebSocket URL of a Starling node.
    #[arg(long, global = true, env = "STARLING_NODE", default_value = "ws://127.0.0.1:9944")]
    node: String,
    #[command(flatten)]
    key: KeyArgs,
    /// What to log to standard error (as `tracing` filters are written).
    #[arg(long, global = true, default_value = "warn,starling_client=info")]
    pub(crate) log: String,
    #[command(subcommand)]
    command: Command,
}

/// The key that signs. Never given as an argument: others could read it in the process list.
#[derive(Debug, Args)]
struct KeyArgs {
    /// File with the secret URI (phrase, 0x seed, or //Path on development chains) of the paying account.
    #[arg(long, global = true, env = "STARLING_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Account that pays, if the key is one that it delegated spending to. Default: the key's own account.
    #[arg(long, global = true)]
    account: Option<AccountId>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an OpenAI API on localhost; every request is signed, sent to a random active host, and its answer checked.
    Proxy {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:8800")]
        listen: SocketAddr,
        /// Folder in which receipts are kept.
        #[arg(long, default_value = "starling-receipts")]
        receipts: PathBuf,
    },
    /// Deposit tokens for inference.
    Deposit {
        /// How many tokens.
        #[arg(value_parser = amount::parse)]
        tokens: Balance,
    },
    /// Take back tokens that are not reserved.
    Withdraw {
        /// How many tokens.
        #[arg(value_parser = amount::parse)]
        tokens: Balance,
    },
    /// Let another key (a gateway's, for API keys) spend from the deposit.
    Delegate {
        /// The key's account.
        key: AccountId,
        /// How many tokens in all.
        #[arg(value_parser = amount::parse)]
        tokens: Balance,
    },
    /// Take a delegation back.
    Revoke {
        /// The key's account.
        key: AccountId,
    },
    /// Show the chain, the hosts, the models and this account.
    Status,
    /// Ask one question, or talk.
    Chat {
        /// The question; without one, an interactive conversation.
        message: Option<String>,
        /// Profile to use. Default: the first one.
        #[arg(long)]
        model: Option<String>,
        /// Tokens per answer at most.
        #[arg(long, default_value_t = 256)]
        max_tokens: u32,
        /// 0 to 2.
        #[arg(long, default_value_t = 0.7)]
        temperature: f64,
        /// Folder in which receipts are kept.
        #[arg(long, default_value = "starling-receipts")]
        receipts: PathBuf,
    },
    /// Check saved answers on their own: hashes, signature of the executor, and the replay of the sampler.
    Verify {
        /// Receipt files, as `proxy` and `chat` save them.
        #[arg(required = true)]
        receipts: Vec<PathBuf>,
        /// Also compare executor key and epoch seed with the chain (the node must still have that epoch).
        #[arg(long)]
        on_chain: bool,
    },
}

pub(crate) async fn run(cli: Cli) -> Result<()> {
    let connect = || async {
        ChainClient::connect(&cli.node)
            .await
            .with_context(|| format!("cannot connect to the node at {}", cli.node))
    };
    match &cli.command {
        Command::Verify { receipts, on_chain } => {
            let chain = if *on_chain { Some(connect().await?) } else { None };
            verify_all(receipts, chain.as_ref()).await
        }
        Command::Status => {
            account::status(&connect().await?, cli.key.load()?.as_ref().map(Keypair::account)).await
        }
        Command::Deposit { tokens } => {
            account::deposit(&connect().await?, &cli.key.require()?, *tokens).await
        }
        Command::Withdraw { tokens } => {
            account::withdraw(&connect().await?, &cli.key.require()?, *tokens).await
        }
        Command::Delegate { key, tokens } => {
            account::delegate(&connect().await?, &cli.key.require()?, key, *tokens).await
        }
        Command::Revoke { key } => account::revoke(&connect().await?, &cli.key.require()?, key).await,
        Command::Proxy { listen, receipts } => {
            proxy::serve(*listen, cli.key.proxy(connect().await?, receipts.clone())?).await
        }
        Command::Chat { message, model, max_tokens, temperature, receipts } => {
            let state = cli.key.proxy(connect().await?, receipts.clone())?;
            let options =
                chat::Options { model: model.clone(), max_tokens: *max_tokens, temperature: *temperature };
            chat::run(state, message.as_deref(), options).await
        }
    }
}

/// Checks every receipt; fails when one of them proves nothing, after all the others were looked at.
async fn verify_all(receipts: &[PathBuf], chain: Option<&ChainClient>) -> Result<()> {
    if let [single] = receipts {
        return verify(single, chain).await;
    }
    let mut failed = 0usize;
    for path in receipts {
        println!("{}", path.display());
        if let Err(error) = verify(path, chain).await {
            failed = failed.saturating_add(1);
            println!("NOT PROVEN   {error:#}");
        }
    }
    ensure!(failed == 0, "{failed} of {} receipts prove nothing", receipts.len());
    Ok(())
}

async fn verify(path: &Path, chain: Option<&ChainClient>) -> Result<()> {
    let receipt = SavedReceipt::load(path)?;
    let checked = receipt.check()?;
    println!("{checked}");
    if let Some(chain) = chain {
        receipt.check_on_chain(chain).await?;
        println!("on chain     executor key and epoch seed agree");
    }
    Ok(())
}

impl KeyArgs {
    fn load(&self) -> Result<Option<Keypair>> {
        let Some(path) = &self.key_file else { return Ok(None) };
        Ok(Some(Keypair::from_file(path).with_context(|| format!("key file {}", path.display()))?))
    }

    fn require(&self) -> Result<Keypair> {
        match self.load()? {
            Some(key) => Ok(key),
            None => bail!("this command signs: give --key-file FILE or set STARLING_KEY_FILE"),
        }
    }

    fn proxy(&self, chain: ChainClient, receipts: PathBuf) -> Result<proxy::Proxy> {
        let key = self.require()?;
        let payer = self.account.clone().unwrap_or_else(|| key.account());
        let signer = RequestSigner::new(chain.genesis(), payer, key);
        let http = proxy::http_client()?;
        let models = Models::new(chain.clone(), http.clone());
        proxy::Proxy::new(chain.clone(), Gateways::new(chain), models, signer, http, receipts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_receipt_is_looked_at_and_one_that_proves_nothing_fails_all() {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.json");
        std::fs::write(&broken, "{}").unwrap();
        let missing = folder.path().join("missing.json");
        let error = verify_all(&[broken.clone(), missing], None).await.unwrap_err();
        assert_eq!(error.to_string(), "2 of 2 receipts prove nothing");
        let error = verify_all(&[broken], None).await.unwrap_err();
        assert!(!error.to_string().contains("receipts prove nothing"), "{error:#}");
    }

    #[test]
    fn verify_takes_one_receipt_at_least() {
        assert!(Cli::try_parse_from(["starling", "verify"]).is_err());
        let cli = Cli::try_parse_from(["starling", "verify", "a.json", "b.json", "--on-chain"]).unwrap();
        assert!(matches!(cli.command, Command::Verify { receipts, on_chain: true } if receipts.len() == 2));
    }
}
