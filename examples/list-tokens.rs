//! Lists the tokens that the server sees, and the keys and certificates in each.
//!
//! ```text
//! list-tokens [SOCKET]
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // It talks to the person who runs it.

use std::error::Error;

use p11_client::message::ListKeys;
use p11_client::{Client, Config};

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args().nth(1);
    let client = Client::new(socket.map(Config::new).unwrap_or_default());
    for token in client.list_tokens()?.tokens {
        println!("{} ({} {})", token.uri, token.manufacturer, token.model);
        if !token.initialized {
            println!("  blank: it has to be initialised");
            continue;
        }
        // What is private needs the token's PIN, which the server may have.
        match client.list_keys(ListKeys::new(token.uri)) {
            Ok(listing) => {
                for object in listing.objects {
                    let (class, kind) = (object.class, object.key_type);
                    println!("  {class} {kind} {}: {}", object.bits, object.uri);
                }
            }
            Err(e) => println!("  {e}"),
        }
    }
    Ok(())
}
