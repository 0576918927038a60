//! The listening socket: at a path that is ours alone while we live, or passed by systemd.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::AcceptConn;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, getsockopt, listen, socket,
};
use nix::sys::stat::{Mode, umask};
use tracing::info;

/// How many connections may wait to be accepted on a socket that was passed, as its unit says.
const BACKLOG: i32 = 256;

/// Why we cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody answers on this socket.
    #[error(
        "another server is already listening on {}; stop it, or set another --socket-path",
        .0.display()
    )]
    InUse(PathBuf),
    /// Something lies at the path that is not ours to remove.
    #[error("{} exists and is no socket; remove it, or set another --socket-path", .0.display())]
    NotASocket(PathBuf),
    /// A step failed.
    #[error("cannot {step} {}: {cause}", path.display())]
    System {
        /// What was tried.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// systemd passed something else than one UNIX stream socket.
    #[error("the socket passed by the service manager cannot be used: {0}")]
    Inherited(String),
}

/// The socket that clients connect to. Dropped, it removes what it made.
pub(crate) struct Socket {
    listener: UnixListener,
    own: Mutex<Option<Own>>,
}

/// What lies in the file system because of us.
struct Own {
    socket: PathBuf,
    /// What lies there, unless somebody has put something else in its place.
    made: Option<Inode>,
    lock: Lock,
}

/// Which file it is: device and number.
type Inode = (u64, u64);

impl Socket {
    /// The socket that systemd passed (sd_listen_fds(3)), `None` if it passed none.
    ///
    /// # Errors
    /// [`Error::Inherited`]
    pub fn inherited() -> Result<Option<Socket>, Error> {
        let mut passed = ListenFd::from_env();
        if passed.len() > 1 {
            let count = format!("there are {} of them, and one is served", passed.len());
            return Err(Error::Inherited(count));
        }
        let listener = passed.take_unix_listener(0);
        let listener = listener.map_err(|error| Error::Inherited(error.to_string()))?;
        if let Some(listener) = &listener {
            if !getsockopt(listener, AcceptConn).unwrap_or(false) {
                return Err(Error::Inherited("it does not listen".into()));
            }
            // From now on clients are told our user id (SO_PEERCRED), and not the service manager's.
            let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
            listen(listener, backlog).map_err(|error| Error::Inherited(error.to_string()))?;
        }
        Ok(listener.map(|listener| Socket {
            listener,
            own: Mutex::new(None),
        }))
    }

    /// Makes the socket, with mode 0660, and its folder if need be. The socket of a server that died
    /// is taken over.
    ///
    /// # Errors
    /// [`Error::InUse`] beside a live server, [`Error::NotASocket`], [`Error::System`].
    pub fn bind(path: &Path) -> Result<Socket, Error> {
        let failed = |step, cause| Error::System {
            step,
            path: path.into(),
            cause,
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            // Whatever the mask is, others can come through and cannot write.
            let before = umask(Mode::from_bits_truncate(0o022));
            let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
            umask(before);
            made.map_err(|cause| failed("create the folder of", cause))?;
        }
        let lock = Lock::take(path)?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Error::NotASocket(path.into()));
            }
            // Where locks do nothing, and beside servers that take none, an answer tells.
            Ok(_) if is_served(path) => return Err(Error::InUse(path.into())),
            Ok(_) => {
                info!("taking over the socket of a server that is gone");
                fs::remove_file(path).map_err(|cause| failed("remove the stale socket", cause))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(failed("look at", cause)),
        }
        // At no time may others connect, so the mode is set by the mask and not afterwards.
        let before = umask(Mode::from_bits_truncate(0o117));
        let listener = UnixListener::bind(path);
        umask(before);
        Ok(Socket {
            listener: listener.map_err(|cause| failed("listen on", cause))?,
            own: Mutex::new(Some(Own {
                socket: path.into(),
                made: inode(path),
                lock,
            })),
        })
    }

    /// The listening end.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Where it is, as far as it has a name.
    pub fn path(&self) -> Option<PathBuf> {
        let address = self.listener.local_addr().ok()?;
        address.as_pathname().map(PathBuf::from)
    }
}

impl Socket {
    /// Whether it was made by somebody else, who removes it.
    pub fn is_inherited(&self) -> bool {
        self.own().is_none()
    }

    /// Removes what we made; nobody can connect any more.
    pub fn remove(&self) {
        if let Some(own) = self.own().take() {
            if own.made.is_some() && inode(&own.socket) == own.made {
                let _ = fs::remove_file(&own.socket);
            }
            let _ = fs::remove_file(&own.lock.path);
        }
    }

    fn own(&self) -> MutexGuard<'_, Option<Own>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

fn inode(path: &Path) -> Option<Inode> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Whether somebody takes connections on this socket, or is too busy to.
fn is_served(path: &Path) -> bool {
    let connect_now = || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
    };
    // A socket of another kind is somebody else's.
    matches!(
        connect_now(),
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE)
    )
}

/// A locked file beside the socket: two servers that start at once must not both find it stale.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path) -> Result<Lock, Error> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |cause| Error::System {
            step: "lock",
            path: path.clone(),
            cause,
        };
        loop {
            let file = File::options()
                .create(true)
                .append(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
                .map_err(failed)?;
            // Who can open it can lock it. One that is not ours is left as it is.
            let _ = file.set_permissions(Permissions::from_mode(0o600));
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::InUse(socket.into())),
                // A file system without locks: the answer on the socket has to tell.
                Err(TryLockError::Error(error)) => info!("cannot lock {}: {error}", path.display()),
            }
            // A server that ended between our open and our lock has removed the file that we hold.
            let held = file.metadata().map_err(failed)?;
            match fs::metadata(&path) {
                Ok(there) if there.ino() == held.ino() && there.dev() == held.dev() => {
                    return Ok(Lock { path, _file: file });
                }
                _ => {}
            }
        }
    }
}
