//! SIGTERM, SIGINT and SIGHUP, read from a descriptor (signalfd(2)) by a thread of its own.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook::low_level::exit;
use tracing::error;

use super::net::Socket;
use crate::engine::unblock_signals_in_forks;

/// How long after SIGTERM the process ends, whatever hangs: a little more than what is waited for in order.
const END: Duration = Duration::from_secs(9);

/// Blocks these signals in this thread and in those that it will start.
///
/// # Errors
/// What the system says.
pub(super) fn block() -> io::Result<SignalFd> {
    let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    set.thread_block()?;
    unblock_signals_in_forks()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?)
}

/// The signals that come from now on. `socket` is removed where the process has to end without the main thread.
///
/// # Errors
/// There is no thread to wait for them.
pub(super) fn listen(
    signals: SignalFd,
    socket: Arc<OnceLock<Arc<Socket>>>,
) -> io::Result<Receiver<Signal>> {
    let (sender, heard) = mpsc::channel();
    // Each thread that starts needs a lock that dlopen(3) holds during the initialisers of a module.
    let started = Arc::new(Barrier::new(2));
    let has_started = started.clone();
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(move || {
        has_started.wait();
        pass_on(&signals, &sender, &socket);
    })?;
    started.wait();
    Ok(heard)
}

/// After a signal that says to stop, sees to it that the process ends. The main thread may hang, as in the
/// initialisers of a module.
fn pass_on(signals: &SignalFd, sender: &Sender<Signal>, socket: &OnceLock<Arc<Socket>>) {
    loop {
        let signal = match signals.read_signal() {
            Ok(Some(signal)) => Signal::try_from(signal.ssi_signo as i32),
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(error) => return error!("cannot read signals: {error}"),
        };
        let Ok(signal) = signal else { continue };
        let _ = sender.send(signal);
        if signal != Signal::SIGHUP {
            thread::sleep(END);
            if let Some(socket) = socket.get() {
                socket.remove();
            }
            // Without a word: the log may need the lock, too.
            exit(0);
        }
    }
}
