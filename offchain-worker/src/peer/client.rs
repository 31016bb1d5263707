//! What this host asks of others.

use super::{
    frame::{self, FrameError},
    protocol::{
        ExecuteControl, ExecuteEvent, ExecuteRequest, Refusal, ServedTranscript, SprintLeaf, SprintQuery,
        TranscriptQuery, EXECUTE, MAX_ANSWER, MAX_CONTROL, MAX_EXECUTE_EVENT, MAX_EXECUTE_REQUEST,
        MAX_LEAVES, MAX_QUERY, SPRINT, TRANSCRIPT,
    },
    swarm::{PeerError, PeerNetwork},
};
use crate::context::{self, HelperError, Peers};
use async_trait::async_trait;
use codec::{Decode, DecodeAll, Encode};
use futures::{io::AsyncWriteExt, AsyncReadExt};
use libp2p::{Stream, StreamProtocol};
use starling_primitives::{transcript::Transcript, AccountId, EpochIndex, ProfileId, RequestId};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Events between a peer's stream and the one who reads them.
const EVENT_BUFFER: usize = 32;
/// A connection may turn out to be dead, or the peer drop a stream in a rush: so often one is opened.
const OPEN_ATTEMPTS: u32 = 3;

/// Asks other hosts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerClient {
    network: PeerNetwork,
    exchange_timeout: Duration,
}

/// A request that an executor runs: its events, and the way to say that nobody wants them any more.
///
/// Dropping it without [`Execution::end`] looks to the executor like a connection that broke.
#[derive(Debug)]
pub struct Execution {
    /// What the executor says. Ends without a last event when the connection breaks.
    pub events: mpsc::Receiver<ExecuteEvent>,
    control: Option<oneshot::Sender<ExecuteControl>>,
}

impl Execution {
    /// From its two channels.
    pub fn new(events: mpsc::Receiver<ExecuteEvent>, control: oneshot::Sender<ExecuteControl>) -> Self {
        Self { events, control: Some(control) }
    }

    /// Says why nobody wants the rest.
    pub fn end(mut self, why: ExecuteControl) {
        if let Some(control) = self.control.take() {
            // An executor that is through needs no control.
            let _ = control.send(why);
        }
    }
}

fn broken(error: &FrameError) -> PeerError {
    PeerError::Broken(error.to_string())
}

impl PeerClient {
    /// On top of a node.
    pub(crate) fn new(network: PeerNetwork, exchange_timeout: Duration) -> Self {
        Self { network, exchange_timeout }
    }

    /// The node.
    pub fn network(&self) -> &PeerNetwork {
        &self.network
    }

    async fn open(&self, host: &AccountId, protocol: StreamProtocol) -> Result<Stream, PeerError> {
        let entry = self.network.table().entry_of(host).ok_or(PeerError::Unknown)?;
        self.network.open(entry.peer, protocol).await
    }

    /// Forwards a request. Returns when the executor has answered whether it takes it: the first event is there.
    pub async fn execute(
        &self,
        host: &AccountId,
        request: &ExecuteRequest,
    ) -> Result<(ExecuteEvent, Execution), PeerError> {
        for attempt in 0..OPEN_ATTEMPTS {
            let mut stream = self.open(host, EXECUTE).await?;
            let exchange = first_event(&mut stream, request);
            match tokio::time::timeout(self.exchange_timeout, exchange).await {
                // The stream before broke after all that mattered: whether that run goes on, nobody knows.
                Ok(Ok(ExecuteEvent::Refused(Refusal::Duplicate))) if attempt > 0 => break,
                Ok(Ok(first)) => return Ok((first, spawn_pump(stream))),
                // Closed without a word.
                Ok(Err(FrameError::Closed | FrameError::Io(_))) => {}
                Ok(Err(error)) => return Err(broken(&error)),
                Err(_) => return Err(PeerError::Timeout),
            }
        }
        Err(PeerError::Broken("no answer".into()))
    }

    async fn ask<Q: Encode, A: Decode>(
        &self,
        host: &AccountId,
        protocol: StreamProtocol,
        question: &Q,
    ) -> Result<A, PeerError> {
        let exchange = async {
            for _ in 0..OPEN_ATTEMPTS {
                let mut stream = self.open(host, protocol.clone()).await?;
                match question_and_answer(&mut stream, question).await {
                    Ok(answer) => return answer.ok_or(PeerError::NotFound),
                    Err(FrameError::Closed | FrameError::Io(_)) => {}
                    Err(error) => return Err(broken(&error)),
                }
            }
            Err(PeerError::Broken("no answer".into()))
        };
        tokio::time::timeout(self.exchange_timeout, exchange).await.unwrap_or(Err(PeerError::Timeout))
    }
}

async fn question_and_answer<Q: Encode, A: Decode>(
    stream: &mut Stream,
    question: &Q,
) -> Result<Option<A>, FrameError> {
    frame::write(stream, question, MAX_QUERY).await?;
    frame::read(stream, MAX_ANSWER).await
}

async fn first_event(stream: &mut Stream, request: &ExecuteRequest) -> Result<ExecuteEvent, FrameError> {
    frame::write(stream, request, MAX_EXECUTE_REQUEST).await?;
    frame::read(stream, MAX_EXECUTE_EVENT).await
}

/// Moves events from the stream to a channel, and the control message the other way. Ends with either side.
fn spawn_pump(stream: Stream) -> Execution {
    let (sender, events) = mpsc::channel(EVENT_BUFFER);
    let (control, mut controlled) = oneshot::channel();
    // Owned by its two channels: it ends when the reader is gone, or the stream.
    tokio::spawn(async move {
        let (mut reader, mut writer) = stream.split();
        let pump = async {
            while let Ok(event) = frame::read::<_, ExecuteEvent>(&mut reader, MAX_EXECUTE_EVENT).await {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = pump => {}
            said = &mut controlled => {
                if let Ok(said) = said {
                    let _ = frame::write(&mut writer, &said, MAX_CONTROL).await;
                    let _ = writer.close().await;
                }
            }
        }
    });
    Execution::new(events, control)
}

fn helper_error(error: &PeerError) -> HelperError {
    match error {
        PeerError::NotFound => HelperError::Refused(error.to_string()),
        other => HelperError::Unavailable(other.to_string()),
    }
}

fn decode_transcript(bytes: &[u8]) -> Result<Transcript, HelperError> {
    Transcript::decode_all(&mut &*bytes)
        .map_err(|error| HelperError::Refused(format!("the transcript does not decode: {error}")))
}

#[async_trait]
impl Peers for PeerClient {
    async fn fetch_transcript(
        &self,
        host: &AccountId,
        request: RequestId,
    ) -> Result<context::ServedTranscript, HelperError> {
        let query = TranscriptQuery { request_id: request };
        let served: ServedTranscript =
            self.ask(host, TRANSCRIPT, &query).await.map_err(|error| helper_error(&error))?;
        Ok(context::ServedTranscript {
            transcript: decode_transcript(&served.transcript)?,
            prompt_tokens: served.prompt_tokens,
            constraint: served.constraint,
            receipt: served.receipt,
        })
    }

    async fn fetch_sprint_leaves(
        &self,
        host: &AccountId,
        epoch: EpochIndex,
        profile: ProfileId,
        nonces: Vec<u32>,
    ) -> Result<Vec<context::SprintLeaf>, HelperError> {
        let mut leaves = Vec::with_capacity(nonces.len());
        for chunk in nonces.chunks(MAX_LEAVES) {
            let query = SprintQuery { epoch, profile, nonces: chunk.to_vec() };
            let served: Vec<SprintLeaf> =
                self.ask(host, SPRINT, &query).await.map_err(|error| helper_error(&error))?;
            for leaf in served.into_iter().take(chunk.len()).filter(|leaf| chunk.contains(&leaf.nonce)) {
                // A leaf that does not decode is a leaf that the host does not have.
                if let Ok(transcript) = decode_transcript(&leaf.transcript) {
                    leaves.push(context::SprintLeaf { nonce: leaf.nonce, transcript, proof: leaf.proof });
                }
            }
        }
        Ok(leaves)
    }
}
