//! How much memory there is: asked before it is taken, because a system that overcommits kills instead of refusing.

use super::ModelError;
use std::{fs, path::Path};

/// Bytes of memory, as the system and the control group of this process count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes there are.
    pub total: u64,
    /// Bytes that can be taken without swapping.
    pub free: u64,
}

/// Memory of this process; `None` where the system does not say.
pub fn available() -> Option<Memory> {
    let system = parse_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(narrowed(system, &groups, Path::new("/sys/fs/cgroup")))
}

/// An error when so many bytes are not free.
pub(super) fn check(needed: u64) -> Result<(), ModelError> {
    // Where the system does not say, only trying tells.
    let free = available().map_or(u64::MAX, |memory| memory.free);
    if needed > free {
        return Err(ModelError::NoRoom { needed, free });
    }
    Ok(())
}

fn parse_meminfo(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { total: field("MemTotal")?, free: field("MemAvailable")? })
}

/// The system's memory, or what the control group and those above it leave of it: each may have a limit.
fn narrowed(mut memory: Memory, groups: &str, root: &Path) -> Memory {
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return memory };
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    for folder in root.join(group).ancestors().take_while(|folder| folder.starts_with(root)) {
        // A group without a limit says "max".
        let (limit, used) = (number(&folder.join("memory.max")), number(&folder.join("memory.current")));
        if let (Some(limit), Some(used)) = (limit, used) {
            // Pages of files that are only cached are given back when memory is wanted.
            let cached = cached(&fs::read_to_string(folder.join("memory.stat")).unwrap_or_default());
            memory.total = memory.total.min(limit);
            memory.free = memory.free.min(limit.saturating_sub(used.saturating_sub(cached)));
        }
    }
    memory
}

fn cached(stat: &str) -> u64 {
    let field = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.unwrap_or(0)
    };
    field("inactive_file ").saturating_add(field("active_file "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_figures_are_read() {
        let text = "MemTotal:       24689764 kB\nMemFree:         1000 kB\nMemAvailable:   22020096 kB\n";
        let expected = Memory { total: 24_689_764 << 10, free: 22_020_096 << 10 };
        assert_eq!(parse_meminfo(text), Some(expected));
        assert_eq!(parse_meminfo("MemTotal: lots"), None);
        let here = available().unwrap();
        assert!(here.free > 0 && here.free <= here.total);
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "10\n");
        write("a/memory.max", "1000\n");
        write("a/memory.current", "700\n");
        write("a/memory.stat", "anon 400\nactive_file 100\ninactive_file 150\n");
        let system = Memory { total: 5_000, free: 3_000 };
        assert_eq!(narrowed(system, "0::/a/b\n", root.path()), Memory { total: 1_000, free: 550 });
        assert_eq!(narrowed(system, "0::/\n", root.path()), system);
        assert_eq!(narrowed(system, "3:memory:/old\n", root.path()), system);
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(check(1).is_ok());
        let error = check(u64::MAX - 1).unwrap_err();
        assert!(matches!(error, ModelError::NoRoom { .. }), "{error}");
    }
}
