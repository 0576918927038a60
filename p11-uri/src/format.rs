//! [`Uri`] to text: without PIN for people and logs, whole where that is asked for by name.

use crate::uri::{SCHEME, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use secrecy::SecretString;
use std::borrow::Cow;
use std::fmt::{self, Write};

/// Stands for a PIN. `<` is legal nowhere in a URI, so that what is printed with it is refused when
/// somebody feeds it back, and not tried as a PIN.
pub(crate) const REDACTED: &str = "<REDACTED>";

/// What p11tool percent-encodes in the path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// In the query, paths of files stay readable.
const QUERY: &AsciiSet = &PATH.remove(b'/').remove(b':');

impl Uri {
    /// The whole URI, its PIN included. What [`Uri::parse`] makes of it equals this URI.
    pub fn to_string_with_pin(&self) -> SecretString {
        // Counted first: a string that grows, or shrinks to fit, leaves copies of the PIN behind.
        let mut length = Length(0);
        let mut text = String::new();
        let written = self.write(&mut length, true).and_then(|()| {
            text.reserve_exact(length.0);
            self.write(&mut text, true)
        });
        debug_assert!(written.is_ok() && text.len() == length.0);
        SecretString::from(text)
    }

    fn write(&self, out: &mut dyn Write, with_pin: bool) -> fmt::Result {
        out.write_str(SCHEME)?;
        let vendor = self.vendor_path().map(|(name, value)| (name, value.into()));
        let path = self
            .token
            .values()
            .chain(self.object.values())
            .chain(vendor);
        write_list(out, ["", ";"], path, PATH, with_pin)?;
        let vendor = self
            .vendor_query()
            .map(|(name, value)| (name, value.into()));
        write_list(
            out,
            ["?", "&"],
            self.query.values().chain(vendor),
            QUERY,
            with_pin,
        )
    }
}

impl fmt::Display for Uri {
    /// Without PIN. Attributes are in the order in which p11tool prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

fn write_list<'a>(
    out: &mut dyn Write,
    [mut before, separator]: [&str; 2],
    attributes: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>,
    encoded: &'static AsciiSet,
    with_pin: bool,
) -> fmt::Result {
    for (name, value) in attributes {
        write!(out, "{before}{name}=")?;
        before = separator;
        if holds_pin(name) && !with_pin {
            out.write_str(REDACTED)?;
        } else if name == "id" {
            // All of it, as p11tool does.
            value
                .iter()
                .try_for_each(|byte| write!(out, "%{byte:02X}"))?;
        } else {
            write!(out, "{}", percent_encode(&value, encoded))?;
        }
    }
    Ok(())
}

struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// Whether an attribute holds a PIN: `pin-value`, and what is meant by `pin`, `so-pin` or `PIN_VALUE`. The
/// scheme may stand before the name.
pub(crate) fn holds_pin(name: &str) -> bool {
    name != "pin-source"
        && name
            .split([':', '-', '_'])
            .any(|word| word.eq_ignore_ascii_case("pin"))
}
