//! PINs: from a file, from a variable, or asked for without an echo. Never from the command line.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use p11_client::Pin;
use signal_hook::consts::SIGINT;
use signal_hook::{flag, low_level};

use crate::exit::Refusal;

/// Declares the two flags of a PIN.
macro_rules! flags {
    ($name:ident, $whose:literal, $file:ident, $variable:ident, $file_flag:literal, $names:literal) => {
        #[derive(Debug, clap::Args)]
        pub struct $name {
            #[doc = concat!("A file with ", $whose, " alone (- for stdin)")]
            #[arg(long, value_name = "FILE")]
            $file: Option<PathBuf>,
            #[doc = concat!("An environment variable that holds ", $whose)]
            #[arg(long, value_name = "NAME", conflicts_with = $file_flag)]
            $variable: Option<String>,
        }

        impl $name {
            pub const FLAGS: &str = $names;

            /// The PIN, `None` where neither flag is there.
            pub fn read(&self) -> Result<Option<Pin>, Refusal> {
                read(self.$file.as_deref(), self.$variable.as_deref())
            }
        }
    };
}

flags!(
    NewPin,
    "the new PIN",
    new_pin_file,
    new_pin_env,
    "new_pin_file",
    "--new-pin-file FILE or --new-pin-env NAME"
);
flags!(
    SoPin,
    "the security officer's PIN",
    so_pin_file,
    so_pin_env,
    "so_pin_file",
    "--so-pin-file FILE or --so-pin-env NAME"
);

/// The flags of the user's PIN, which every command has.
pub const USER_PIN_FLAGS: &str = "--pin-file FILE or --pin-env NAME";

/// A PIN from a file or from a variable.
pub fn read(file: Option<&Path>, variable: Option<&str>) -> Result<Option<Pin>, Refusal> {
    if let Some(file) = file {
        return from_file(file).map(Some);
    }
    let Some(variable) = variable else {
        return Ok(None);
    };
    let value = env::var(variable).map_err(|_| {
        Refusal::usage(format_args!(
            "the variable {variable} is not set, or is no text"
        ))
    })?;
    checked(value, &format!("the variable {variable}")).map(Some)
}

/// What is typed at the terminal, unseen; `None` for nothing. `flags` are what would have brought it.
pub fn ask(question: &str, flags: &str) -> Result<Option<Pin>, Refusal> {
    match prompt(question) {
        Ok(typed) => Ok(Some(Pin::from(typed)).filter(|pin| !pin.expose().is_empty())),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            Err(Refusal::usage("no PIN was typed; nothing was done"))
        }
        Err(_) => Err(Refusal::usage(format_args!(
            "there is no terminal to ask at ({}): give it by {flags}",
            question.trim_end_matches([':', ' '])
        ))),
    }
}

/// The same, twice.
pub fn ask_twice(question: &str, flags: &str) -> Result<Option<Pin>, Refusal> {
    let pin = ask(question, flags)?;
    match pin.is_some() && pin != ask("Again: ", flags)? {
        true => Err(Refusal::usage("the two differ; nothing was done")),
        false => Ok(pin),
    }
}

/// Whether somebody is there to be asked.
pub fn can_ask() -> bool {
    File::open("/dev/tty").is_ok()
}

fn from_file(path: &Path) -> Result<Pin, Refusal> {
    let (text, name) = match path == Path::new("-") {
        true => {
            let mut text = String::new();
            let read = io::stdin().read_to_string(&mut text);
            (read.map(|_| text), "stdin".to_owned())
        }
        false => (fs::read_to_string(path), format!("{path:?}")),
    };
    match text {
        Ok(text) => checked(text, &name),
        Err(e) => Err(Refusal::usage(format_args!(
            "the PIN cannot be read from {name}: {e}"
        ))),
    }
}

/// As the server reads its PIN files: line ends at the end are not part of it.
fn checked(text: String, source: &str) -> Result<Pin, Refusal> {
    let whole = Pin::from(text);
    let pin = whole.expose().trim_end_matches(['\n', '\r']);
    if pin.is_empty() {
        return Err(Refusal::usage(format_args!("{source} is empty")));
    }
    if pin.contains(char::is_control) || pin.starts_with('\u{feff}') || pin.trim() != pin {
        return Err(Refusal::usage(format_args!(
            "{source} has more than a PIN: several lines, a blank around it, or characters that nobody can type"
        )));
    }
    Ok(Pin::from(pin))
}

/// Asks without an echo. Ctrl-C ends the program, with the terminal as it was.
fn prompt(question: &str) -> io::Result<String> {
    let interrupt = interrupt()?;
    interrupt.is_default.store(false, Ordering::SeqCst);
    let typed = rpassword::prompt_password(question);
    interrupt.is_default.store(true, Ordering::SeqCst);
    if interrupt.is_noted.load(Ordering::SeqCst) {
        let _ = low_level::emulate_default_handler(SIGINT);
        process::exit(130);
    }
    typed
}

/// What SIGINT does. rpassword raises it while the echo is still off, and turns that on when its call returns: until then
/// the signal is only noted.
struct Interrupt {
    is_default: Arc<AtomicBool>,
    is_noted: Arc<AtomicBool>,
}

/// Made with the first question, since handlers stay.
fn interrupt() -> io::Result<&'static Interrupt> {
    static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();
    if let Some(interrupt) = INTERRUPT.get() {
        return Ok(interrupt);
    }
    let interrupt = Interrupt {
        is_default: Arc::default(),
        is_noted: Arc::default(),
    };
    flag::register_conditional_default(SIGINT, Arc::clone(&interrupt.is_default))?;
    flag::register(SIGINT, Arc::clone(&interrupt.is_noted))?;
    Ok(INTERRUPT.get_or_init(|| interrupt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_what_a_file_holds_without_its_line_ends() {
        let pin = |text: &str| checked(text.to_owned(), "it").map(|pin| pin.expose().to_owned());
        assert_eq!(pin("12 34\r\n").unwrap(), "12 34");
        for bad in ["", "\n", "1234\n5678\n", " 1234", "12\t34", "\u{feff}1234"] {
            let refusal = pin(bad).unwrap_err();
            assert!(!refusal.message.contains("1234"), "{}", refusal.message);
        }
    }
}
