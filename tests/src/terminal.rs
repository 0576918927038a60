//! A program at a terminal of its own (pty(7)), as a person sees and drives it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    thread,
};

use nix::{
    pty::openpty,
    sys::termios::{LocalFlags, tcgetattr},
};

use crate::{tools::command, wait::is_soon};

/// The terminal, and the program whose session it is.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Kept open, so that the terminal outlives the program and can be looked at.
    device: OwnedFd,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command as the leader of a session with a new terminal. What it prints on stdout is left as the command has it.
    pub fn start(inner: &Command) -> Self {
        let pty = openpty(None, None).expect("a new terminal");
        let device = |fd: &OwnedFd| fd.try_clone().expect("one more descriptor");
        let mut outer = command("setsid");
        outer.args(["--ctty", "--wait"]).arg(inner.get_program());
        outer.args(inner.get_args());
        if let Some(folder) = inner.get_current_dir() {
            outer.current_dir(folder);
        }
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
            .stdin(device(&pty.slave))
            .stdout(device(&pty.slave))
            .stderr(device(&pty.slave));
        let child = outer.spawn().expect("setsid runs");
        let screen = Arc::<Mutex<Vec<u8>>>::default();
        let (mut output, seen) = (File::from(device(&pty.master)), Arc::clone(&screen));
        // Ends with an error when the last program has closed the terminal, and this test its own end.
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            child,
            keyboard: File::from(pty.master),
            device: pty.slave,
            screen,
        }
    }

    /// All that was shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until this is shown.
    pub fn wait_for(&self, text: &str) {
        let is_shown = is_soon(|| self.screen().contains(text));
        assert!(is_shown, "{text:?} is not shown: {:?}", self.screen());
    }

    /// Waits for a question, types an answer unseen, and presses Enter.
    pub fn answer(&mut self, question: &str, answer: &str) {
        self.wait_for(question);
        assert!(
            is_soon(|| !self.echoes()),
            "{question:?} shows what is typed"
        );
        self.press(&format!("{answer}\r"));
    }

    /// Presses these keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown.
    pub fn echoes(&self) -> bool {
        let settings = tcgetattr(&self.device).expect("settings of the terminal");
        settings.local_flags.contains(LocalFlags::ECHO)
    }

    /// Waits for the program to end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        is_soon(|| {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        let Some(ended) = ended else {
            let _ = self.child.kill();
            panic!("the program goes on: {:?}", self.screen());
        };
        ended
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
