//! The counts of calls, shared between the processes that make them and the test that reads them.
//!
//! The file `counts` is an array of native 64-bit words: one for each function in the order of
//! `CK_FUNCTION_LIST` ([`Function::ALL`]), then the greatest number of threads inside the module at once,
//! then the number of times that a call rule acted, then the number of sessions that are open.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::Error;
use crate::function::Function;

const FUNCTIONS: usize = Function::ALL.len();
const MAX_CONCURRENT: usize = FUNCTIONS;
const INJECTED: usize = FUNCTIONS + 1;
const OPEN_SESSIONS: usize = FUNCTIONS + 2;
const WORDS: usize = FUNCTIONS + 3;

/// The shared counts of one folder.
#[derive(Debug)]
pub(crate) struct Counters {
    words: &'static [AtomicU64],
    /// Threads inside the module now; of this process only, so a process that died leaves nothing behind.
    inside: AtomicU64,
}

impl Counters {
    /// Maps the file, which it creates if need be. The mapping stays for the life of the process.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("counts");
        let words = map(&path).map_err(|source| Error::File { path, source })?;
        let inside = AtomicU64::new(0);
        Ok(Self { words, inside })
    }

    pub fn called(&self, function: Function) {
        self.add(function as usize);
    }

    pub fn injected(&self) {
        self.add(INJECTED);
    }

    pub fn set_open_sessions(&self, open: usize) {
        if let Some(word) = self.words.get(OPEN_SESSIONS) {
            word.store(open as u64, Relaxed);
        }
    }

    /// Counts the calling thread as inside the module until the guard is dropped.
    pub fn enter(&self) -> Inside<'_> {
        let inside = self.inside.fetch_add(1, Relaxed) + 1;
        if let Some(max) = self.words.get(MAX_CONCURRENT) {
            max.fetch_max(inside, Relaxed);
        }
        Inside(&self.inside)
    }

    pub fn forget_max_concurrent(&self) {
        if let Some(max) = self.words.get(MAX_CONCURRENT) {
            max.store(0, Relaxed);
        }
    }

    pub fn snapshot(&self) -> Counts {
        Counts(std::array::from_fn(|word| {
            self.words.get(word).map_or(0, |word| word.load(Relaxed))
        }))
    }

    fn add(&self, word: usize) {
        if let Some(word) = self.words.get(word) {
            word.fetch_add(1, Relaxed);
        }
    }
}

/// See [`Counters::enter`].
pub(crate) struct Inside<'a>(&'a AtomicU64);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The counts at one moment, or between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; WORDS]);

impl Counts {
    /// How often the function was called.
    pub fn of(&self, function: Function) -> u64 {
        self.word(function as usize)
    }

    /// How many calls there were of all functions.
    pub fn total(&self) -> u64 {
        self.0.iter().take(FUNCTIONS).sum()
    }

    /// How often a rule made with [`on`](crate::on) acted.
    pub fn injected(&self) -> u64 {
        self.word(INJECTED)
    }

    /// The greatest number of threads that were inside the module at once, outside `C_Initialize`.
    pub fn max_concurrent(&self) -> u64 {
        self.word(MAX_CONCURRENT)
    }

    /// How many sessions were open after the last call that opened or closed one.
    pub fn open_sessions(&self) -> u64 {
        self.word(OPEN_SESSIONS)
    }

    /// What was counted since an earlier moment. The greatest number of threads and the number of open
    /// sessions stay what they are.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut words = self.0;
        for (word, before) in words.iter_mut().zip(earlier.0) {
            *word = word.wrapping_sub(before);
        }
        for stays in [MAX_CONCURRENT, OPEN_SESSIONS] {
            if let Some(word) = words.get_mut(stays) {
                *word = self.word(stays);
            }
        }
        Self(words)
    }

    fn word(&self, word: usize) -> u64 {
        self.0.get(word).copied().unwrap_or_default()
    }
}

/// The functions that were called, `C_SignInit 1, C_Sign 1`, for the message of an assertion.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for function in Function::ALL {
            if self.of(function) > 0 {
                write!(f, "{separator}{} {}", function.name(), self.of(function))?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

fn map(path: &Path) -> io::Result<&'static [AtomicU64]> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let length = WORDS * size_of::<AtomicU64>();
    file.set_len(length as u64)?;
    // SAFETY: a new shared mapping of `length` bytes of a file that is at least as long; the address is the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, WORDS words long, never undone, and every access to it, in any process, is atomic.
    Ok(unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), WORDS) })
}
