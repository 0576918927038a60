//! The bytes of one message, in either protocol: their limit, and a buffer that is wiped.

use std::io::{self, Write};

use zeroize::Zeroizing;

/// The longest message, in bytes. TLS 1.2 signs whole transcripts, hence so much.
pub const MAX_LEN: usize = 1 << 20;

/// The bytes of a message, which may hold a PIN. They are wiped when dropped.
pub type Body = Zeroizing<Vec<u8>>;

/// A buffer that leaves no copy of a PIN behind when it grows.
pub(crate) struct WipingBuffer(pub Body);

impl Write for WipingBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity(2 * (self.0.len() + bytes.len()));
            larger.extend_from_slice(&self.0);
            self.0 = Zeroizing::new(larger);
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
