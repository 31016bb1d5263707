//! What this host serves to others.

use super::{
    frame::{self, FrameError},
    protocol::{
        ExecuteControl, ExecuteEvent, ExecuteRequest, Refusal, ServedTranscript, SprintLeaf, SprintQuery,
        TranscriptQuery, EXECUTE, MAX_ANSWER, MAX_CONTROL, MAX_EXECUTE_EVENT, MAX_EXECUTE_REQUEST,
        MAX_LEAVES, MAX_QUERY, SPRINT, TRANSCRIPT,
    },
    streams::Accepted,
    table::PeerTable,
};
use crate::executor::HangUp;
use crate::tasks::Tasks;
use async_trait::async_trait;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use starling_primitives::{EpochIndex, ProfileId, RequestId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Events between the executor and the stream.
const EVENT_BUFFER: usize = 32;

/// Runs requests that other hosts forward.
#[async_trait]
pub trait ExecuteHandler: Send + Sync + 'static {
    /// Runs one request to its end.
    async fn execute(
        &self,
        request: ExecuteRequest,
        events: mpsc::Sender<ExecuteEvent>,
        hang_up: watch::Receiver<Option<HangUp>>,
    );
}

/// The archive cannot be read now.
#[derive(Debug, thiserror::Error)]
#[error("the archive cannot be read: {0}")]
pub struct ArchiveError(pub String);

/// What a host promised to keep.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Transcript and payload of a request that this host executed.
    async fn transcript(&self, request: &RequestId) -> Result<Option<ServedTranscript>, ArchiveError>;

    /// Leaves of this host's sprint commitment; those it does not have are left out.
    async fn sprint_leaves(
        &self,
        epoch: EpochIndex,
        profile: ProfileId,
        nonces: &[u32],
    ) -> Result<Vec<SprintLeaf>, ArchiveError>;
}

#[async_trait]
impl ExecuteHandler for crate::executor::Executor {
    async fn execute(
        &self,
        request: ExecuteRequest,
        events: mpsc::Sender<ExecuteEvent>,
        hang_up: watch::Receiver<Option<HangUp>>,
    ) {
        crate::executor::Executor::execute(self, request, events, hang_up).await;
    }
}

/// Bounds of what is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) exchange_timeout: Duration,
    pub(crate) max_streams_per_peer: usize,
}

/// Streams being served, by peer.
type Counts = Arc<Mutex<HashMap<PeerId, usize>>>;

/// One stream's share of its peer's limit.
struct StreamSlot {
    counts: Counts,
    peer: PeerId,
}

impl StreamSlot {
    fn take(counts: &Counts, peer: PeerId, limit: usize) -> Option<Self> {
        let mut held = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(peer).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Self { counts: counts.clone(), peer })
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut held = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.peer);
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct Server {
    services: super::Services,
    table: PeerTable,
    limits: Limits,
    counts: Counts,
}

impl Server {
    pub(crate) fn new(services: super::Services, table: PeerTable, limits: Limits) -> Self {
        Self { services, table, limits, counts: Counts::default() }
    }

    /// Serves accepted streams until the token is cancelled.
    pub(crate) async fn run(
        self,
        mut accepted: mpsc::Receiver<Accepted>,
        tasks: Tasks,
        shutdown: CancellationToken,
    ) {
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return,
                next = accepted.recv() => next,
            };
            let Some(Accepted { peer, protocol, stream }) = next else { return };
            if let Some(slot) = self.slot(peer) {
                tasks.spawn(self.clone().serve(peer, protocol, stream, slot));
            }
        }
    }

    async fn serve(self, peer: PeerId, protocol: StreamProtocol, stream: Stream, _slot: StreamSlot) {
        if protocol == EXECUTE {
            self.serve_execute(peer, stream).await;
        } else if protocol == TRANSCRIPT {
            self.serve_transcript(stream).await;
        } else if protocol == SPRINT {
            self.serve_sprint(stream).await;
        }
    }

    fn slot(&self, peer: PeerId) -> Option<StreamSlot> {
        // Admission let the connection in; the registry may have changed since.
        if !self.table.knows(&peer) {
            return None;
        }
        StreamSlot::take(&self.counts, peer, self.limits.max_streams_per_peer)
    }

    async fn serve_execute(&self, peer: PeerId, stream: Stream) {
        let (mut reader, mut writer) = stream.split();
        let read = frame::read::<_, ExecuteRequest>(&mut reader, MAX_EXECUTE_REQUEST);
        let request = match tokio::time::timeout(self.limits.exchange_timeout, read).await {
            Ok(Ok(request)) => request,
            Ok(Err(FrameError::Closed)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::debug!(target: "starling::peer", %peer, %error, "unreadable request");
                return;
            }
        };
        if !self.table.speaks_for(&peer, &request.authorization.authorization.gateway) {
            let refused = ExecuteEvent::Refused(Refusal::NotAuthorized);
            let _ = frame::write(&mut writer, &refused, MAX_EXECUTE_EVENT).await;
            let _ = writer.close().await;
            return;
        }
        let (sender, events) = mpsc::channel(EVENT_BUFFER);
        let (hang_up, interest) = watch::channel(None);
        let broken = hang_up.clone();
        let listen = async move {
            let said = frame::read::<_, ExecuteControl>(&mut reader, MAX_CONTROL).await;
            hang_up.send_replace(Some(said.map_or(HangUp::Lost, HangUp::Said)));
        };
        let relay = async move {
            if write_events(&mut writer, events).await.is_err() {
                broken.send_replace(Some(HangUp::Lost));
            }
        };
        let execute = self.services.execute.execute(request, sender, interest);
        let served = async { tokio::join!(execute, relay) };
        tokio::pin!(served, listen);
        tokio::select! {
            _ = &mut served => {}
            () = &mut listen => { served.await; }
        }
    }

    async fn serve_transcript(&self, mut stream: Stream) {
        let exchange = async {
            let query: TranscriptQuery = frame::read(&mut stream, MAX_QUERY).await?;
            match self.services.archive.transcript(&query.request_id).await {
                Ok(answer) => frame::write(&mut stream, &answer, MAX_ANSWER).await?,
                // No answer at all: "not found" would be a promise broken.
                Err(error) => {
                    tracing::error!(target: "starling::peer", %error, "a transcript cannot be served")
                }
            }
            stream.close().await.map_err(FrameError::Io)
        };
        self.bounded(exchange).await;
    }

    async fn serve_sprint(&self, mut stream: Stream) {
        let exchange = async {
            let query: SprintQuery = frame::read(&mut stream, MAX_QUERY).await?;
            if query.nonces.len() > MAX_LEAVES {
                return Ok(());
            }
            match self.services.archive.sprint_leaves(query.epoch, query.profile, &query.nonces).await {
                Ok(leaves) => frame::write(&mut stream, &Some(leaves), MAX_ANSWER).await?,
                Err(error) => {
                    tracing::error!(target: "starling::peer", %error, "sprint leaves cannot be served")
                }
            }
            stream.close().await.map_err(FrameError::Io)
        };
        self.bounded(exchange).await;
    }

    async fn bounded(&self, exchange: impl std::future::Future<Output = Result<(), FrameError>>) {
        match tokio::time::timeout(self.limits.exchange_timeout, exchange).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(target: "starling::peer", %error, "an exchange broke off"),
            Err(_) => tracing::debug!(target: "starling::peer", "an exchange took too long"),
        }
    }
}

/// Writes events until the executor has said its last; the executor sees a closed channel when the stream breaks.
async fn write_events(
    writer: &mut (impl futures::AsyncWrite + Unpin),
    mut events: mpsc::Receiver<ExecuteEvent>,
) -> Result<(), FrameError> {
    while let Some(event) = events.recv().await {
        frame::write(writer, &event, MAX_EXECUTE_EVENT).await?;
    }
    writer.close().await.map_err(FrameError::Io)
}
