//! What the parts of the agent share, and the traits by which duties reach ML nodes and other hosts.
//!
//! Duties know no HTTP, libp2p or subxt type: `fleet` implements [`SprintRunner`] and [`Verifier`], `peer`
//! implements [`Peers`], `tokenizers` implements [`EndTokens`], `planter` implements [`Planter`].

use crate::store::{Payload, Store};
use async_trait::async_trait;
use starling_chain_client::{ChainClient, Keypair, Outbox};
use starling_primitives::{
    constraint::Constraint, merkle::Proof, profile::Profile, receipt::SignedReceipt, request::RequestHeader,
    sprint::SprintTask, transcript::Transcript, verdict::Figures, AccountId, EpochIndex, ProfileId,
    RequestId, H256,
};
use std::{ops::Range, sync::Arc};
use tokio::sync::mpsc;

/// Cheap handles to everything a part of the agent needs besides its own state.
#[derive(Clone, Debug)]
pub struct AgentContext {
    /// The chain.
    pub chain: ChainClient,
    /// Calls on their way to the chain; durable.
    pub outbox: Outbox,
    /// Payloads, transcripts and what else was promised; durable.
    pub store: Store,
    /// The worker key.
    pub worker: Keypair,
    /// The host's account.
    pub host: AccountId,
    /// Hash of block 0.
    pub genesis: H256,
}

/// The helpers of the duties, as trait objects.
#[derive(Clone)]
pub struct DutyHelpers {
    /// Runs sprint chunks on this host's ML nodes.
    pub sprint: Arc<dyn SprintRunner>,
    /// Verifies transcripts on this host's ML nodes.
    pub verifier: Arc<dyn Verifier>,
    /// Asks other hosts.
    pub peers: Arc<dyn Peers>,
    /// Knows where answers end.
    pub end_tokens: Arc<dyn EndTokens>,
    /// Makes answers that are bad on purpose.
    pub planter: Arc<dyn Planter>,
}

/// One nonce of a sprint, done.
#[derive(Clone, Debug)]
pub struct SprintResult {
    /// The nonce.
    pub nonce: u32,
    /// Its transcript.
    pub transcript: Transcript,
}

/// Runs sprint work on the ML nodes of this host. Implemented by `fleet`.
#[async_trait]
pub trait SprintRunner: Send + Sync + 'static {
    /// Ids of the healthy ML nodes that have the profile loaded, now. Asked again during the race, so that a node
    /// which comes back takes part again.
    async fn nodes(&self, profile: ProfileId) -> Vec<String>;

    /// Nonces that one chunk should hold for this node: what it works on at once.
    async fn chunk_size(&self, _node: &str, _profile: ProfileId) -> u32 {
        16
    }

    /// Runs the nonces on one node and sends each result as soon as it is there, in any order. Returns when all are
    /// done. Dropping the future stops the work on the node.
    async fn run(
        &self,
        node: &str,
        task: &SprintTask,
        nonces: Range<u32>,
        results: mpsc::Sender<SprintResult>,
    ) -> Result<(), HelperError>;
}

/// A transcript to be verified by an ML node.
#[derive(Clone, Debug)]
pub struct VerifyItem {
    /// The transcript, already replayed.
    pub transcript: Transcript,
    /// Token ids of the prompt, already hashed and compared.
    pub prompt_tokens: Vec<u32>,
    /// Seed of its tape.
    pub tape_seed: H256,
    /// What the answer had to keep to, already hashed and compared.
    pub constraint: Option<Constraint>,
}

/// What an ML node says of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyOutcome {
    /// Distance and margin were measured.
    Measured(Figures),
    /// The node's own replay failed.
    ReplayFailed(String),
    /// The answer does not keep to its constraint, which only who has the tokenizer can see.
    ConstraintBroken(String),
}

/// Verifies transcripts on the ML nodes of this host, behind requests of clients. Implemented by `fleet`.
#[async_trait]
pub trait Verifier: Send + Sync + 'static {
    /// Whether a healthy ML node has the profile loaded.
    async fn serves(&self, profile: ProfileId) -> bool;

    /// One outcome per item, in order.
    async fn verify(
        &self,
        profile: ProfileId,
        items: Vec<VerifyItem>,
    ) -> Result<Vec<VerifyOutcome>, HelperError>;
}

/// What another host serves of an inference it executed.
#[derive(Clone, Debug)]
pub struct ServedTranscript {
    /// The transcript with its header.
    pub transcript: Transcript,
    /// Token ids of the prompt.
    pub prompt_tokens: Vec<u32>,
    /// What the answer had to keep to.
    pub constraint: Option<Constraint>,
    /// The host's word on it, not checked yet; `None` when it gives none.
    pub receipt: Option<SignedReceipt>,
}

/// One leaf of another host's sprint.
#[derive(Clone, Debug)]
pub struct SprintLeaf {
    /// The nonce, which is the leaf's index.
    pub nonce: u32,
    /// Its transcript.
    pub transcript: Transcript,
    /// Proof that its root is a leaf of the commitment.
    pub proof: Proof,
}

/// Asks other hosts for what they promised to keep. Implemented by `peer`.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Transcript, prompt and receipt of an inference that `host` executed.
    async fn fetch_transcript(
        &self,
        host: &AccountId,
        request: RequestId,
    ) -> Result<ServedTranscript, HelperError>;

    /// Leaves of the sprint of `host` for these nonces. A leaf that the host does not have is left out.
    async fn fetch_sprint_leaves(
        &self,
        host: &AccountId,
        epoch: EpochIndex,
        profile: ProfileId,
        nonces: Vec<u32>,
    ) -> Result<Vec<SprintLeaf>, HelperError>;
}

/// Knows the tokens that end an answer. Implemented by `tokenizers`.
#[async_trait]
pub trait EndTokens: Send + Sync + 'static {
    /// End-of-sequence tokens of a profile's tokenizer, sorted.
    async fn end_tokens(&self, profile: &Profile) -> Result<Vec<u32>, HelperError>;
}

/// What a client could ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The request, with any nonce.
    pub header: RequestHeader,
    /// Token ids of its prompt.
    pub prompt_tokens: Vec<u32>,
    /// The same as a gateway takes it: the JSON body of `/v1/chat/completions`.
    pub body: String,
}

/// What came of an answer that was to be bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planting {
    /// The gateway has it; what goes to the chain is on its way.
    Answered,
    /// There is none, for this reason. The request is spent.
    Dropped(String),
}

/// Makes answers that are bad on purpose, on the ML nodes of this host. Implemented by `planter`.
#[async_trait]
pub trait Planter: Send + Sync + 'static {
    /// A question that nobody has written: the model asks it itself.
    async fn question(&self, profile: ProfileId) -> Result<Question, HelperError>;

    /// Asks a gateway, as any client does, a question that this host is drawn for, and answers it with noise on the model, which
    /// follows from `noise`: if its own verification finds such an answer far beyond the limits. `body` is the question as the
    /// gateway of the authorization takes it. After a temporary error it may be asked again.
    async fn answer(&self, payload: Payload, body: String, noise: H256) -> Result<Planting, HelperError>;
}

/// Why a helper did not do it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// Nothing answers, or not now: worth a retry.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The other side says it does not have it, or answered nonsense: a retry changes nothing soon.
    #[error("refused: {0}")]
    Refused(String),
}

impl HelperError {
    /// Whether the same question may be answered a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
