//! Signs with a PKCS#11 module that is loaded in this process: no server, no socket.
//!
//! ```text
//! PIN=... embed-module MODULE KEY-URI MESSAGE
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // It talks to the person who runs it.

use std::error::Error;

use p11_client::{Client, ModuleConfig, Pin, Scheme, SigningKey};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(module), Some(uri), Some(message)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: PIN=... embed-module MODULE KEY-URI MESSAGE".into());
    };
    let pin = std::env::var("PIN").ok().map(Pin::from);

    // All clients of a module share its sessions and its login, and any of them works as one of the socket does.
    let client = Client::with_module(ModuleConfig::new(module).pin(pin))?;
    let key = SigningKey::open(&client, &uri, None, None)?;
    let mut schemes = key.schemes().iter().copied().map(u16::from);
    let scheme = schemes
        .find_map(Scheme::from_number)
        .ok_or("the token can sign nothing with this key")?;
    let signature = key.sign(scheme, message.as_bytes())?;

    println!("{}", key.uri());
    println!("{scheme}");
    for byte in signature {
        print!("{byte:02x}");
    }
    println!();
    Ok(())
}
