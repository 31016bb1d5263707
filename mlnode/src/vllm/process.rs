//! A vLLM server as a child process.

use crate::config::ENV_PREFIX;
use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

/// Time that a server gets to end when it is told to.
const STOP_TIME: Duration = Duration::from_secs(10);
/// Time within which the last lines of a server that ended are read.
const LINES_TIME: Duration = Duration::from_secs(1);
/// Lines of its output that are kept for an error's text.
const LINES_KEPT: usize = 20;

/// How to start a server.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// The Python interpreter.
    pub(super) python: PathBuf,
    /// Everything that follows it.
    pub(super) arguments: Vec<OsString>,
    /// The socket that it listens at; what an earlier one left there is removed, since it takes no path that exists.
    pub(super) port: PathBuf,
    /// Set beside the node's own environment, without the node's settings.
    pub(super) environment: Vec<(OsString, OsString)>,
}

/// A running server: a process group of its own, since it starts further processes, which a server that was killed leaves
/// behind.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: libc::pid_t,
    readers: [JoinHandle<()>; 2],
    lines: Lines,
}

/// The last lines of its output.
type Lines = Arc<Mutex<VecDeque<String>>>;

impl Process {
    /// Starts it. It is told to end when the calling *thread* ends, so that a node that is killed leaves none behind.
    pub(super) fn start(launch: &Launch) -> io::Result<Self> {
        match std::fs::remove_file(&launch.port) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut command = Command::new(&launch.python);
        command
            .args(&launch.arguments)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            // The token above all is none of its business.
            if name.to_string_lossy().starts_with(ENV_PREFIX) {
                command.env_remove(name);
            }
        }
        end_with_this_thread(&mut command);
        let mut child = command.spawn()?;
        let group = child.id().and_then(|id| libc::pid_t::try_from(id).ok());
        let group = group.ok_or_else(|| io::Error::other("it ended at once"))?;
        let lines = Lines::default();
        let readers = [
            read_lines(child.stdout.take(), Arc::clone(&lines)),
            read_lines(child.stderr.take(), Arc::clone(&lines)),
        ];
        Ok(Self { child, group, readers, lines })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.group.unsigned_abs()
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it with all that it started, and returns the last lines of its output.
    pub(super) async fn end(mut self) -> Vec<String> {
        signal(self.group, libc::SIGTERM);
        let _ = tokio::time::timeout(STOP_TIME, self.child.wait()).await;
        // What is left of its group: a group's number is not given to others while it has members.
        signal(self.group, libc::SIGKILL);
        let _ = self.child.wait().await;
        for reader in &mut self.readers {
            let _ = tokio::time::timeout(LINES_TIME, reader).await;
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

#[allow(unsafe_code, reason = "there is no safe way to signal a group")]
fn signal(group: libc::pid_t, signal: libc::c_int) {
    // SAFETY: takes two numbers. A group that is gone is an error that changes nothing.
    unsafe { libc::killpg(group, signal) };
}

#[allow(unsafe_code, reason = "only the child itself can ask for this")]
fn end_with_this_thread(command: &mut Command) {
    // SAFETY: prctl may be called between fork and exec: it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}

/// Logs what it writes, and keeps the last lines.
fn read_lines(output: Option<impl AsyncRead + Unpin + Send + 'static>, lines: Lines) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Some(output) = output else { return };
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(output.read_until(b'\n', &mut line).await, Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            tracing::info!(target: "vllm", "{text}");
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() >= LINES_KEPT {
                lines.pop_front();
            }
            lines.push_back(text);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_ends_as_a_whole_and_its_last_lines_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let port = folder.path().join("port");
        std::fs::write(&port, "left").unwrap();
        let script = "echo $0 $GIVEN; sleep 1000 & echo $!; wait";
        let mut process = Process::start(&Launch {
            python: "sh".into(),
            arguments: ["-c", script, "shell"].map(OsString::from).into(),
            port: port.clone(),
            environment: vec![("GIVEN".into(), "environment".into())],
        })
        .unwrap();
        assert!(!port.exists());
        let both = async {
            while process.lines.lock().unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), process.ended()).await.is_err(), "it runs");
        let lines = process.end().await;
        assert_eq!(lines[0], "shell environment");
        let gone = || {
            !std::fs::read_to_string(format!("/proc/{}/stat", lines[1])).is_ok_and(|s| !s.contains(") Z "))
        };
        let waited = async {
            while !gone() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waited).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let launch = Launch {
            python: "./nowhere".into(),
            arguments: vec![],
            port: "nothing".into(),
            environment: vec![],
        };
        assert_eq!(Process::start(&launch).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
