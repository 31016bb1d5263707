//! The clock of the benchmarks.

#![allow(unexpected_cfgs, unreachable_pub, dead_code, reason = "the macro's, which knows runtimes only")]

use sp_runtime_interface::{pass_by::AllocateAndReturnPointer, runtime_interface};

/// Takes the place of the host function of this name, which asks the wall's clock.
#[runtime_interface]
pub trait Benchmarking {
    /// Time of the processor that this thread had, in nanoseconds: what else runs on the machine does not count.
    fn current_time() -> AllocateAndReturnPointer<[u8; 16], 16> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live value that the call fills.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        assert_eq!(failed, 0, "every thread has a clock");
        (time.tv_sec as u128 * 1_000_000_000 + time.tv_nsec as u128).to_le_bytes()
    }
}
