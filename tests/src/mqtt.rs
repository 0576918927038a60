//! The CONNECT of MQTT 3.1.1, and whether the broker accepts it.

use std::io::{Read, Result, Write};

/// Sends an MQTT 3.1.1 CONNECT and reads the CONNACK (OASIS MQTT 3.1.1, sections 3.1 and 3.2).
/// Its return code is 0 when the broker takes the client.
pub fn connect(stream: &mut (impl Read + Write), client_id: &str) -> Result<u8> {
    const CLEAN_SESSION: u8 = 0x02;
    const KEEP_ALIVE: u8 = 60;
    let id_length = u8::try_from(client_id.len()).expect("a short client id");
    let mut packet = vec![0x10, 12 + id_length];
    packet.extend([
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        4,
        CLEAN_SESSION,
        0,
        KEEP_ALIVE,
    ]);
    packet.extend([0, id_length]);
    packet.extend(client_id.as_bytes());
    stream.write_all(&packet)?;
    stream.flush()?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply)?;
    assert_eq!(reply[..2], [0x20, 2], "no CONNACK");
    Ok(reply[3])
}
