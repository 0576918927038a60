//! Threads that are kept and used again.
//!
//! A PKCS#11 module that has signed in a thread before signs faster there: OpenSSL, for one, seeds a random
//! number generator for each thread.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// How long a thread without a job is kept.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// How long a job waits for a thread where there may be no more: those of connections that were closed
/// end soon.
const PATIENT: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce() + Send>;

/// One thread for each job that runs, and those that wait for their next one.
pub(super) struct Threads {
    state: Mutex<State>,
    /// A thread has become idle, or has ended.
    changed: Condvar,
    most: usize,
    timeout: Duration,
}

#[derive(Default)]
struct State {
    /// The newest at the end. It is used first, so that the threads of a burst end soon.
    idle: Vec<Idle>,
    /// All that there are, idle ones too.
    count: usize,
}

struct Idle {
    thread: ThreadId,
    jobs: Sender<Job>,
}

/// A thread that is counted until it ends, by a panic too.
struct Counted(Arc<Threads>);

impl Threads {
    /// No threads yet; later never more than `most`, and none that was idle for longer than `timeout`.
    pub fn new(most: usize, timeout: Duration) -> Arc<Threads> {
        Arc::new(Threads {
            state: Mutex::default(),
            changed: Condvar::new(),
            most,
            timeout,
        })
    }

    /// Runs a job in an idle thread, or in a new one where none is idle. A panic ends the thread.
    ///
    /// # Errors
    /// There is no thread for it, and the job is dropped.
    pub fn run(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut job: Job = Box::new(job);
        let is_full = |state: &mut State| state.idle.is_empty() && state.count >= self.most;
        let waited = self
            .changed
            .wait_timeout_while(self.state(), PATIENT, is_full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        // Sent under the lock: a thread that has left the list gets no job any more.
        while let Some(thread) = state.idle.pop() {
            match thread.jobs.send(job) {
                Ok(()) => return Ok(()),
                Err(unsent) => job = unsent.0,
            }
        }
        if state.count >= self.most {
            return Err(io::Error::other(format!("there are {} already", self.most)));
        }
        state.count += 1;
        drop(state);
        let counted = Counted(self.clone());
        let thread = thread::Builder::new().name("connection".into());
        thread.spawn(move || counted.0.work(job)).map(drop)
    }

    fn work(&self, first: Job) {
        let thread = thread::current().id();
        let (sender, jobs) = mpsc::channel();
        let mut next = Some(first);
        while let Some(job) = next {
            job();
            self.state().idle.push(Idle {
                thread,
                jobs: sender.clone(),
            });
            self.changed.notify_all();
            next = jobs.recv_timeout(self.timeout).ok().or_else(|| {
                self.state().idle.retain(|idle| idle.thread != thread);
                jobs.try_recv().ok()
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.state().count -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    /// Runs a job that tells its thread.
    fn thread_of_job(threads: &Arc<Threads>) -> ThreadId {
        let (sender, told) = mpsc::channel();
        threads
            .run(move || sender.send(thread::current().id()).unwrap())
            .unwrap();
        told.recv().unwrap()
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            assert!(Instant::now() < end, "it never came to be");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_for_idle(threads: &Threads, count: usize) {
        wait_until(|| threads.state().idle.len() == count);
    }

    /// Each thread holds one more.
    fn wait_for_threads(threads: &Arc<Threads>, count: usize) {
        wait_until(|| Arc::strong_count(threads) == 1 + count);
    }

    /// Two jobs at a time.
    fn run_two(threads: &Arc<Threads>) {
        let both = Arc::new(Barrier::new(3));
        for _ in 0..2 {
            let both = both.clone();
            threads
                .run(move || {
                    both.wait();
                })
                .unwrap();
        }
        both.wait();
    }

    #[test]
    fn a_thread_is_used_again() {
        let threads = Threads::new(10, IDLE);
        let first = thread_of_job(&threads);
        for _ in 0..10 {
            wait_for_idle(&threads, 1);
            assert_eq!(thread_of_job(&threads), first);
        }
        wait_for_threads(&threads, 1);
    }

    #[test]
    fn jobs_at_the_same_time_have_a_thread_each_and_the_newest_idle_one_goes_first() {
        let threads = Threads::new(10, IDLE);
        run_two(&threads);
        wait_for_idle(&threads, 2);
        let newest = threads.state().idle[1].thread;
        assert_eq!(thread_of_job(&threads), newest);
        wait_for_threads(&threads, 2);
    }

    #[test]
    fn idle_threads_end() {
        let threads = Threads::new(10, Duration::from_millis(20));
        run_two(&threads);
        wait_for_threads(&threads, 0);
        assert!(threads.state().idle.is_empty());
        thread_of_job(&threads);
    }

    #[test]
    fn there_are_never_more_than_may_be() {
        let threads = Threads::new(2, IDLE);
        let both = Arc::new(Barrier::new(3));
        for _ in 0..2 {
            let both = both.clone();
            let job = move || {
                both.wait();
            };
            threads.run(job).unwrap();
        }
        let refused = threads.run(|| ()).unwrap_err();
        assert!(refused.to_string().contains("2 already"), "{refused}");
        // A thread that becomes idle meanwhile is waited for.
        both.wait();
        thread_of_job(&threads);
        wait_for_threads(&threads, 2);
    }

    #[test]
    fn a_panic_costs_its_thread_and_nothing_else() {
        let threads = Threads::new(10, IDLE);
        let kept = Arc::new(());
        let lost = kept.clone();
        threads
            .run(move || {
                let _lost = lost;
                panic!("as the test wants it");
            })
            .unwrap();
        wait_for_threads(&threads, 0);
        assert_eq!(Arc::strong_count(&kept), 1);
        thread_of_job(&threads);
        wait_for_idle(&threads, 1);
    }

    #[test]
    fn no_job_is_lost_where_threads_end_all_the_time() {
        let threads = Threads::new(10, Duration::ZERO);
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..1000 {
            let done = done.clone();
            threads
                .run(move || {
                    done.fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
        }
        wait_for_threads(&threads, 0);
        assert_eq!(done.load(Ordering::Relaxed), 1000);
    }
}
