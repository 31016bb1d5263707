//! The Unix socket on which the samplers inside of vLLM reach the node.

use super::{wire::Message, Event, Events};
use std::{
    fs,
    io::{self, Write},
    net::Shutdown,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc,
    },
};

/// Listens until it is dropped. A thread waits for connections and one for each connection reads it: few, as many as processes
/// that sample, and each wants its answer at once.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    stopped: Arc<AtomicBool>,
}

/// The answering half of a connection; dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Connection(UnixStream);

impl Connection {
    /// Sends a frame. The sampler waits for it, so it is read at once.
    pub(super) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write_all(frame)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Its reader ends; a connection that is gone already cannot be shut down.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Socket {
    /// Listens at a path, for this user only. What a node that is gone left there is removed.
    pub(super) fn listen(path: &Path, events: Events) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another node listens there"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let stopped = Arc::new(AtomicBool::new(false));
        let socket = Self { path: path.into(), stopped: Arc::clone(&stopped) };
        std::thread::Builder::new()
            .name("vllm-socket".into())
            .spawn(move || accept(&listener, &stopped, &events))?;
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the thread that waits for connections.
        let _ = UnixStream::connect(&self.path);
        let _ = fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, stopped: &AtomicBool, events: &Events) {
    let next = AtomicU64::new(0);
    for stream in listener.incoming() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let id = next.fetch_add(1, Ordering::Relaxed);
        let begun = stream.and_then(|stream| {
            let connection = Connection(stream.try_clone()?);
            events.send(Event::Connected(id, connection));
            let events = events.clone();
            std::thread::Builder::new().name("vllm-sampler".into()).spawn(move || read(stream, id, &events))
        });
        if let Err(error) = begun {
            tracing::warn!(%error, "a sampler could not connect");
        }
    }
}

fn read(mut stream: UnixStream, id: u64, events: &Events) {
    loop {
        match Message::read(&mut stream) {
            Ok(Some(message)) => events.send(Event::Said(id, message)),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "a sampler cannot be understood");
                break;
            }
        }
    }
    events.send(Event::Disconnected(id));
}
