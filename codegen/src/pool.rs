//! Threads that run the chunks of one job at a time.
//!
//! Each thread has a part of the chunks of its own, always the same one: what a kernel has written of its part of a tensor is in a cache near the core that
//! goes on with that part in the next kernel. Where cores share no cache, it would come from another one's, several times slower. A thread that is done
//! helps the others.

use std::hint::spin_loop;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often a thread looks for work before it sleeps: some ten microseconds, the time between launches.
const SPINS: usize = 4_000;

/// A job: called with every chunk number once.
type Job = dyn Fn(usize) + Sync;

/// The calling thread and `threads - 1` of its own.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time.
    turn: Mutex<()>,
}

struct Shared {
    state: Mutex<State>,
    /// A job has come, or the pool ends.
    wake: Condvar,
    /// Counts jobs, to be seen without the lock.
    epoch: AtomicUsize,
    /// The next chunk of each thread's part.
    next: Vec<Counter>,
    /// Workers that have not finished with the job.
    busy: AtomicUsize,
    end: AtomicBool,
}

/// On a cache line of its own, with the one that is fetched along.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicUsize);

#[derive(Default)]
struct State {
    /// The current job and its number of chunks. The pointer is valid until `busy` is 0, which `run` waits for.
    job: Option<(*const Job, usize)>,
}

// SAFETY: the job behind the pointer is `Sync`, and `Pool::run` keeps it alive while workers use it.
unsafe impl Send for State {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Starts the threads.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            epoch: AtomicUsize::new(0),
            next: (0..threads.max(1)).map(|_| Counter::default()).collect(),
            busy: AtomicUsize::new(0),
            end: AtomicBool::new(false),
        });
        let workers = (1..threads)
            .map(|thread| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.work(thread))
            })
            .collect();
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    /// Threads that work on a job.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job` with `0..chunks`, from all threads, and returns when all are done. The job must not panic.
    pub fn run(&self, chunks: usize, job: &(dyn Fn(usize) + Sync)) {
        let _turn = lock(&self.turn);
        let shared = &*self.shared;
        for thread in 0..shared.next.len() {
            shared.next[thread].0.store(shared.part(thread, chunks).start, Ordering::Relaxed);
        }
        let alone = chunks < 2 || self.workers.is_empty();
        if !alone {
            // SAFETY: only the lifetime changes; this function returns when no worker uses the job any more.
            let job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Job>(job) };
            let mut state = lock(&shared.state);
            state.job = Some((job, chunks));
            shared.busy.store(self.workers.len(), Ordering::Relaxed);
            shared.epoch.fetch_add(1, Ordering::Release);
            drop(state);
            shared.wake.notify_all();
        }
        shared.chunks(0, job, chunks);
        let mut spins = 0;
        while !alone && shared.busy.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins > SPINS { std::thread::yield_now() } else { spin_loop() }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        let state = lock(&self.shared.state);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        drop(state);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker only ends by returning.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The chunks that a thread begins with.
    fn part(&self, thread: usize, chunks: usize) -> Range<usize> {
        let threads = self.next.len();
        thread * chunks / threads..(thread + 1) * chunks / threads
    }

    /// Runs a thread's chunks, then what others have left of theirs.
    fn chunks(&self, thread: usize, job: &(dyn Fn(usize) + Sync), chunks: usize) {
        let threads = self.next.len();
        for part in (thread..threads).chain(0..thread) {
            let end = self.part(part, chunks).end;
            loop {
                let chunk = self.next[part].0.fetch_add(1, Ordering::Relaxed);
                if chunk >= end {
                    break;
                }
                job(chunk);
            }
        }
    }

    /// Waits for a job after the `seen`th.
    fn wait(&self, seen: usize) -> usize {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            spin_loop();
        }
        let mut state = lock(&self.state);
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, thread: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait(seen);
            if self.end.load(Ordering::Relaxed) {
                return;
            }
            let job = lock(&self.state).job;
            if let Some((job, chunks)) = job {
                // SAFETY: `Pool::run` waits for this worker before the job's end.
                self.chunks(thread, unsafe { &*job }, chunks);
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once() {
        let pool = Pool::new(3);
        for chunks in (0..200).chain([1, 1000]) {
            let seen = (0..chunks).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>();
            pool.run(chunks, &|c| {
                seen[c].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn jobs_from_several_threads_take_turns() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(10, &|c| {
                            sum.fetch_add(c, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 50 * 45);
    }
}
