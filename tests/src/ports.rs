//! Free ports of the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

/// A port that is free, as is the next one. Another program may take them before the caller does.
pub(crate) fn two_free_ports() -> u16 {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    loop {
        let first = bind(0).expect("a free port");
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && bind(port + 1).is_ok() {
            return port;
        }
    }
}
