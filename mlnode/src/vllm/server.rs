//! The node's end of a vLLM server: what is asked of it runs on a thread of its own, what comes of it are [`Event`]s.

use super::{
    api::{Api, Completion, Failure},
    process::Launch,
    pulse::Pulse,
    socket::Socket,
    supervisor::Supervisor,
    Event, Events,
};
use crate::{readiness::Readiness, source::Waker};
use std::{
    cell::Cell,
    future::Future,
    io,
    path::Path,
    sync::{
        mpsc::{channel, Receiver},
        Arc, OnceLock,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{runtime::Handle, task::AbortHandle};
use tokio_util::sync::CancellationToken;

/// How to come to a server.
pub(super) struct Plan {
    /// How to reach it.
    pub(super) api: Api,
    /// How to start it; absent where somebody else does.
    pub(super) launch: Option<Launch>,
    /// From a start to the first token.
    pub(super) start_time: Duration,
    /// Without a token that is owed.
    pub(super) stalled_time: Duration,
    /// Log-probabilities of a token that a request may ask for.
    pub(super) read_top: u32,
}

/// A server, supervised until this is dropped.
pub(super) struct Server {
    api: Api,
    read_top: u32,
    pulse: Arc<Pulse>,
    readiness: Readiness,
    events: Events,
    received: Receiver<Event>,
    waker: Arc<OnceLock<Waker>>,
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    // After the thread: what the server was started with goes when it is gone.
    _socket: Socket,
    _folder: Option<TempDir>,
}

impl Server {
    /// Listens at `socket` and begins with the plan. `folder` holds what the server is started with.
    pub(super) fn begin(plan: Plan, socket: &Path, folder: Option<TempDir>) -> io::Result<Self> {
        let (sender, received) = channel();
        let waker = Arc::new(OnceLock::new());
        let events = Events { sender, waker: Arc::clone(&waker) };
        let socket = Socket::listen(socket, events.clone())?;
        // One thread: the server is told to end when the thread that started it does.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (pulse, readiness, stop) =
            (Arc::new(Pulse::default()), Readiness::default(), CancellationToken::new());
        let supervisor = {
            let (api, events, pulse) = (plan.api.clone(), events.clone(), Arc::clone(&pulse));
            let (readiness, stop) = (readiness.clone(), stop.clone());
            let Plan { launch, start_time, stalled_time, .. } = plan;
            move || {
                let serving_since = Cell::new(None);
                Supervisor {
                    api,
                    launch,
                    start_time,
                    stalled_time,
                    pulse,
                    readiness,
                    events,
                    stop,
                    serving_since,
                }
            }
        };
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name("vllm".into())
            .spawn(move || runtime.block_on(supervisor().run()))?;
        Ok(Self {
            api: plan.api,
            read_top: plan.read_top,
            pulse,
            readiness,
            events,
            received,
            waker,
            runtime: handle,
            stop,
            thread: Some(thread),
            _socket: socket,
            _folder: folder,
        })
    }

    /// Whether it can take work.
    pub(super) fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// What is called when there are events; the first one given counts.
    pub(super) fn set_waker(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    /// The next event, if there is one.
    pub(super) fn next_event(&self) -> Option<Event> {
        self.received.try_recv().ok()
    }

    /// Waits for an event until then.
    pub(super) fn wait_event(&self, deadline: Instant) -> Option<Event> {
        self.received.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// It gave a sign of life.
    pub(super) fn beat(&self) {
        self.pulse.beat();
    }

    /// Limits how many log-probabilities of a token are asked for.
    pub(super) fn limit_read_top(&mut self, most: u32) {
        self.read_top = self.read_top.min(most);
    }

    /// Has it write tokens that the node draws: [`Event::Wrote`] as they come, or [`Event::Failed`].
    pub(super) fn write(&self, model: String, completion: Completion) -> AbortHandle {
        let (api, events, key) = (self.api.clone(), self.events.clone(), completion.key);
        self.spawn(key, async move {
            api.run(&model, &completion, |tokens| events.send(Event::Wrote(key, tokens))).await
        })
    }

    /// Has it say what it makes of the last `rows` tokens of a text: [`Event::Read`], or [`Event::Failed`].
    pub(super) fn read(&self, key: u64, model: String, text: Vec<u32>, rows: usize) -> AbortHandle {
        let (api, events, top) = (self.api.clone(), self.events.clone(), self.read_top);
        self.spawn(key, async move {
            let mut all = api.log_probs(&model, &text, top).await?;
            let found = all.split_off(all.len().saturating_sub(rows));
            events.send(Event::Read(key, found));
            Ok(())
        })
    }

    fn spawn(
        &self,
        key: u64,
        work: impl Future<Output = Result<(), Failure>> + Send + 'static,
    ) -> AbortHandle {
        let (events, pulse, asked) = (self.events.clone(), Arc::clone(&self.pulse), self.pulse.ask());
        let task = self.runtime.spawn(async move {
            let _asked = asked;
            if let Err(failure) = work.await {
                pulse.suspect();
                events.send(Event::Failed(key, failure));
            }
        });
        task.abort_handle()
    }

    /// Tokens for whose keys and values it has room.
    pub(super) fn kv_tokens(&self) -> Result<Option<u64>, Failure> {
        let (api, (sender, receiver)) = (self.api.clone(), channel());
        self.runtime.spawn(async move {
            let _ = sender.send(api.kv_tokens().await);
        });
        receiver.recv().map_err(|_| Failure::from("its thread ended"))?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        // The server has a bounded time to end.
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that supervises vLLM panicked");
        }
    }
}
