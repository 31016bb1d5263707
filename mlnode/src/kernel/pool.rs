//! Threads that share out the parts of one computation.
//!
//! A decode step of a small model is a few hundred computations of some microseconds each, so handing one over must cost
//! less than a microsecond: idle threads watch one word for a while before they sleep. Parts are claimed one by one,
//! and only claimed parts are waited for, so a thread that the system holds up delays nobody who can do its work.

use super::isa::Isa;
use std::{
    any::Any,
    panic::{catch_unwind, resume_unwind, AssertUnwindSafe},
    ptr,
    sync::{
        atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
        Arc, Condvar, Mutex, PoisonError,
    },
    thread::JoinHandle,
};

/// Looks at the word of an idle thread before it lets others run, and before it sleeps: about 50 µs, then about a
/// millisecond. Longer would take cores from whoever shares the machine.
const SPINS: u32 = 2_000;
const YIELDS: u32 = 500;

/// Parts of a computation at most.
const PARTS_MAX: usize = u16::MAX as usize;

/// Threads with the kernels they run.
#[derive(Debug)]
pub struct Pool {
    isa: Isa,
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
}

/// What the threads share.
#[derive(Debug)]
struct State {
    /// Number of the computation (32 bits), its parts (16), and parts claimed (16). One word, so that a claim is for the
    /// computation that it was meant for or fails.
    ticket: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    sleepers: Mutex<Sleepers>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Sleepers {
    count: usize,
    stopping: bool,
}

/// A computation; lives on the stack of the one who asked for it.
struct Job<'a> {
    run: &'a (dyn Fn(usize) + Sync),
    done: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Pool {
    /// So many threads in all, the caller's included: with 1 no thread is started. Uses the best kernels there are.
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, Isa::detect())
    }

    /// With the kernels of an instruction set, which the processor must have.
    ///
    /// # Panics
    /// When the processor does not have it.
    pub fn with_isa(threads: usize, isa: Isa) -> Self {
        assert!(Isa::available().contains(&isa), "this processor has no {isa:?}");
        let state = Arc::new(State {
            ticket: AtomicU64::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            sleepers: Mutex::default(),
            wake: Condvar::new(),
        });
        // A thread that cannot be started only makes it slower.
        let workers = (1..threads)
            .map_while(|_| {
                let state = Arc::clone(&state);
                std::thread::Builder::new().name("kernel".into()).spawn(move || state.work()).ok()
            })
            .collect();
        Self { isa, state, workers }
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The kernels to use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs `run(0)` to `run(parts - 1)`, each once, on any thread in any order, and returns when all are done. Calls
    /// from different threads must not overlap, and `run` must not call this.
    ///
    /// # Panics
    /// When one of them panics, after all are done.
    pub fn run(&self, parts: usize, run: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || parts <= 1 {
            return (0..parts).for_each(run);
        }
        for first in (0..parts).step_by(PARTS_MAX) {
            let count = PARTS_MAX.min(parts - first);
            self.run_some(count, &|part| run(first + part));
        }
    }

    fn run_some(&self, parts: usize, run: &(dyn Fn(usize) + Sync)) {
        let job = Job { run, done: AtomicUsize::new(0), panic: Mutex::new(None) };
        // The lifetime is erased for the pointer only: `job` outlives every claim, because each claimed part is waited
        // for below and no part of this computation can be claimed once all are.
        self.state.job.store(ptr::from_ref(&job).cast::<Job<'static>>().cast_mut(), Ordering::Relaxed);
        let number = (self.state.ticket.load(Ordering::Relaxed) >> 32) + 1;
        self.state.ticket.store(number << 32 | (parts as u64) << 16, Ordering::Release);
        // After the ticket: a thread either sees the ticket before it sleeps, or is counted here.
        if self.state.sleepers.lock().unwrap_or_else(PoisonError::into_inner).count > 0 {
            self.state.wake.notify_all();
        }
        self.state.claim_all();
        let mut looks = 0u32;
        while job.done.load(Ordering::Acquire) < parts {
            pause(&mut looks);
        }
        let panic = job.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.sleepers.lock().unwrap_or_else(PoisonError::into_inner).stopping = true;
        self.state.wake.notify_all();
        // Threads that are not asleep notice when they are about to be.
        for worker in self.workers.drain(..) {
            // Panics of parts were caught.
            let _ = worker.join();
        }
    }
}

/// Waits a moment; longer after many looks.
fn pause(looks: &mut u32) {
    *looks = looks.saturating_add(1);
    if *looks < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

fn is_open(ticket: u64) -> bool {
    (ticket & 0xffff) < (ticket >> 16 & 0xffff)
}

impl State {
    fn work(&self) {
        let mut looks = 0;
        loop {
            if is_open(self.ticket.load(Ordering::Acquire)) {
                self.claim_all();
                looks = 0;
            } else if looks < SPINS + YIELDS {
                pause(&mut looks);
            } else {
                if !self.sleep() {
                    return;
                }
                looks = 0;
            }
        }
    }

    /// Sleeps until there is something to claim; false when the pool ends.
    fn sleep(&self) -> bool {
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers.count += 1;
        while !sleepers.stopping && !is_open(self.ticket.load(Ordering::Acquire)) {
            sleepers = self.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
        sleepers.count -= 1;
        !sleepers.stopping
    }

    /// Claims and runs parts of the present computation until none is left.
    fn claim_all(&self) {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        while is_open(ticket) {
            let job = self.job.load(Ordering::Relaxed);
            let claim =
                self.ticket.compare_exchange_weak(ticket, ticket + 1, Ordering::AcqRel, Ordering::Acquire);
            match claim {
                Ok(_) => {
                    // SAFETY: the ticket was open and did not change until the claim, so the pointer, which changes only
                    // between computations, is this computation's; it stays valid until `done` counts this part.
                    let job = unsafe { &*job };
                    job.run((ticket & 0xffff) as usize);
                    ticket = self.ticket.load(Ordering::Acquire);
                }
                Err(now) => ticket = now,
            }
        }
    }
}

impl Job<'_> {
    fn run(&self, part: usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.run)(part))) {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        // The last access: after it the one who asked may be gone.
        self.done.fetch_add(1, Ordering::Release);
    }
}

/// A pointer that parts of a computation share, each for places of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: it is only an address; whoever follows it promises to touch places that nobody else does.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_whatever_the_threads() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for parts in (0..200).chain([PARTS_MAX, PARTS_MAX + 1, 2 * PARTS_MAX + 3]) {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.run(parts, &|part| {
                    counts[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {parts}");
            }
        }
    }

    #[test]
    fn sleeping_threads_wake_up() {
        let pool = Pool::new(3);
        for _ in 0..3 {
            // All asleep.
            while pool.state.sleepers.lock().unwrap().count < 2 {
                std::thread::yield_now();
            }
            // Done only if every thread takes one part.
            let barrier = std::sync::Barrier::new(3);
            pool.run(3, &|_| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            let count = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(50, &|part| {
                    count.fetch_add(1, Ordering::Relaxed);
                    assert_ne!(part, 7, "lucky");
                });
            }));
            assert!(result.is_err());
            assert_eq!(count.load(Ordering::Relaxed), 50);
        }
    }
}
