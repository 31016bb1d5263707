//! Another engine, as a process that measures when told to.
//!
//! It prints one JSON line when it is ready, then answers each line
//! `{"prompt": [ids], "batch": n, "tokens": n}` with `{"prefill": seconds, "decode": seconds}`: the time until the first
//! token of all `batch` copies of the prompt, and that of the other `tokens - 1`.

use serde::Deserialize;
use std::{
    io::{self, BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    str::FromStr,
};

/// How to start a peer: `NAME=PROGRAM ARGUMENT ...`, split at spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCommand {
    /// What it is called in the result.
    pub name: String,
    program: String,
    arguments: Vec<String>,
}

/// A command that does not say both name and program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer is given as NAME=PROGRAM ARGUMENT ...")]
pub struct BadPeer;

impl FromStr for PeerCommand {
    type Err = BadPeer;

    fn from_str(text: &str) -> Result<Self, BadPeer> {
        let (name, command) = text.split_once('=').ok_or(BadPeer)?;
        let mut words = command.split_whitespace().map(str::to_owned);
        let program = words.next().ok_or(BadPeer)?;
        if name.is_empty() {
            return Err(BadPeer);
        }
        Ok(Self { name: name.into(), program, arguments: words.collect() })
    }
}

/// Seconds of one measurement.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Times {
    pub(super) prefill: f64,
    pub(super) decode: f64,
}

/// A running peer; it ends with this value.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts it and waits until it is ready. Its threads are to be `threads`.
    pub(super) fn start(command: &PeerCommand, threads: u32) -> io::Result<Self> {
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut peer =
            Self { name: command.name.clone(), child, input, output: BufReader::new(output).lines() };
        peer.line()?;
        Ok(peer)
    }

    fn line(&mut self) -> io::Result<String> {
        self.output.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    pub(super) fn measure(&mut self, prompt: &[u32], batch: u32, tokens: u32) -> io::Result<Times> {
        let order = serde_json::json!({ "prompt": prompt, "batch": batch, "tokens": tokens });
        writeln!(self.input, "{order}")?;
        self.input.flush()?;
        Ok(serde_json::from_str(&self.line()?)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Gone already, or gone now: nothing is left to be told.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let peer: PeerCommand = "torch=python bench.py a=b 2".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.program.as_str()), ("torch", "python"));
        assert_eq!(peer.arguments, ["bench.py", "a=b", "2"]);
        for bad in ["", "torch", "=python", "torch= "] {
            assert_eq!(bad.parse::<PeerCommand>(), Err(BadPeer));
        }
    }

    #[test]
    fn a_peer_is_asked_and_answers() {
        let command = PeerCommand {
            name: "echo".into(),
            program: "sh".into(),
            arguments: vec![
                "-c".into(),
                r#"echo ready; read line; echo "{\"prefill\": 0.5, \"decode\": ${#line}}""#.into(),
            ],
        };
        let mut peer = Peer::start(&command, 1).unwrap();
        let times = peer.measure(&[1, 2], 3, 4).unwrap();
        let order = r#"{"batch":3,"prompt":[1,2],"tokens":4}"#;
        assert_eq!((times.prefill, times.decode), (0.5, order.len() as f64));
        assert!(peer.measure(&[1], 1, 1).is_err(), "it has ended");
    }
}
