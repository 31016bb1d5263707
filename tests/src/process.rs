//! A process with a log and a pid file: dies with its owner, or lives on by `detach`.

use anyhow::{bail, Context, Result};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running program. Dropping it kills the process with SIGKILL.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Option<Child>,
    log: PathBuf,
    pid_file: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs appended to `{dir}/{name}.log` and its pid in `{dir}/{name}.pid`.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let log = dir.join(format!("{name}.log"));
        let output = open_log(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A group of its own: an interrupt at the terminal reaches the owner, who decides.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let pid_file = dir.join(format!("{name}.pid"));
        fs::write(&pid_file, child.id().to_string())?;
        Ok(Self { name: name.into(), child: Some(child), log, pid_file })
    }

    /// Fails, with the end of its log, when the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { bail!("{} was stopped", self.name) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); its log ends:\n{}", self.name, tail(&self.log, 30)),
        }
    }

    /// Pid, while it is owned.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it had ended already.
            child.kill().ok();
            child.wait().ok();
            fs::remove_file(&self.pid_file).ok();
        }
    }

    /// Leaves the process running when this value is dropped; the pid file finds it again.
    pub fn detach(mut self) {
        self.child.take();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Stops the process that a pid file names: SIGTERM, and SIGKILL when that has not helped within `grace`.
pub fn stop_by_pid_file(pid_file: &Path, grace: Duration) -> Result<()> {
    let Ok(pid) = fs::read_to_string(pid_file) else { return Ok(()) };
    let pid: u32 = pid.trim().parse().context("pid file")?;
    signal(pid, "TERM");
    let deadline = Instant::now() + grace;
    while is_running(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    if is_running(pid) {
        signal(pid, "KILL");
    }
    fs::remove_file(pid_file)?;
    Ok(())
}

/// Whether a pid file names a running process.
pub fn is_running_by_pid_file(pid_file: &Path) -> bool {
    fs::read_to_string(pid_file).ok().and_then(|pid| pid.trim().parse().ok()).is_some_and(is_running)
}

fn is_running(pid: u32) -> bool {
    // A zombie has ended: its state follows the parenthesised name in /proc/PID/stat.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| !rest.trim_start().starts_with('Z')))
        .unwrap_or(false)
}

fn signal(pid: u32, signal: &str) {
    // The process may end by itself at any moment; then there is nothing to signal.
    Command::new("kill").args(["-s", signal, &pid.to_string()]).stderr(Stdio::null()).status().ok();
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// What every healthy process writes, again and again: marks of a node's lines, and the level of the others'.
const ROUTINE: [&str; 8] = [" INFO ", "🏆", "🆕", "🙌", "🎁", "🔖", "💤", "👶"];

/// The last lines of a log.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    end(&all, lines).join("\n")
}

/// The last lines of a log, and before them the last ones of what was unusual earlier: a failure may have begun long before.
pub fn excerpt(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let (earlier, last) = all.split_at(all.len().saturating_sub(lines));
    let is_routine = |line: &str| ROUTINE.iter().any(|mark| line.contains(mark));
    let unusual: Vec<&str> = earlier.iter().copied().filter(|line| !is_routine(line)).collect();
    [end(&unusual, lines), &["..."], last].concat().join("\n")
}

fn end<'a, 'b>(lines: &'a [&'b str], count: usize) -> &'a [&'b str] {
    &lines[lines.len().saturating_sub(count)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_shows_where_it_began() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = ["first warning", "Report of a peer", "2026 💤 Idle", "2026 INFO peer: hello", "a", "b"];
        fs::write(file.path(), lines.join("\n")).unwrap();
        assert_eq!(excerpt(file.path(), 2), "first warning\nReport of a peer\n...\na\nb");
        assert_eq!(excerpt(file.path(), 1), "a\n...\nb");
        assert_eq!(excerpt(file.path(), 9), format!("...\n{}", lines.join("\n")));
        assert_eq!(tail(file.path(), 2), "a\nb");
    }
}
