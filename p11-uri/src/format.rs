//! A [`Uri`] goes in, its text comes out: without PIN for people and logs, whole where that is asked for
//! by name.

use crate::Uri;
use crate::uri::{Path, Query};
use secrecy::{ExposeSecret, SecretString};
use std::fmt::{self, Write};

/// Stands for a PIN. `<` is legal nowhere in a URI, so that what is printed with it is refused when
/// somebody feeds it back, and not tried as a PIN.
pub(crate) const REDACTED: &str = "<REDACTED>";

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

    fn write(&self, out: &mut impl Write, with_pin: bool) -> fmt::Result {
        out.write_str("pkcs11:")?;
        self.path.write(&mut List {
            out,
            before: "",
            separator: ";",
            with_pin,
        })?;
        self.query.write(&mut List {
            out,
            before: "?",
            separator: "&",
            with_pin,
        })
    }
}

impl fmt::Display for Uri {
    /// Without PIN. Attributes are in the order in which p11tool prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl fmt::Debug for Uri {
    /// As `Display`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({self})")
    }
}

impl Path {
    fn write(&self, list: &mut List<'_, impl Write>) -> fmt::Result {
        // Taken apart by name, so that an attribute added to `Path` cannot be forgotten here.
        let Path {
            library_description,
            library_manufacturer,
            library_version,
            slot_description,
            slot_manufacturer,
            slot_id,
            model,
            manufacturer,
            serial,
            token,
            id,
            object,
            object_type,
            vendor,
        } = self;
        list.text("library-description", library_description)?;
        list.text("library-manufacturer", library_manufacturer)?;
        list.shown(
            "library-version",
            library_version.map(|(major, minor)| format!("{major}.{minor}")),
        )?;
        list.text("slot-description", slot_description)?;
        list.text("slot-manufacturer", slot_manufacturer)?;
        list.shown("slot-id", slot_id.as_ref())?;
        list.text("model", model)?;
        list.text("manufacturer", manufacturer)?;
        list.text("serial", serial)?;
        list.text("token", token)?;
        list.shown(
            "id",
            id.as_deref().map(|bytes| Encoded {
                bytes,
                plain: |_| false,
            }),
        )?;
        list.text("object", object)?;
        list.shown("type", object_type.as_ref())?;
        vendor
            .iter()
            .try_for_each(|(name, value)| list.encoded(name, value))
    }
}

impl Query {
    fn write(&self, list: &mut List<'_, impl Write>) -> fmt::Result {
        let Query {
            pin_source,
            pin_value,
            module_name,
            module_path,
            vendor,
        } = self;
        list.text("pin-source", pin_source)?;
        if let Some(pin) = pin_value {
            list.encoded("pin-value", pin.expose_secret().as_bytes())?;
        }
        list.text("module-name", module_name)?;
        list.text("module-path", module_path)?;
        vendor
            .iter()
            .try_for_each(|(name, value)| list.encoded(name, value))
    }
}

/// Attributes on their way out.
struct List<'a, W> {
    out: &'a mut W,
    /// What goes before the next attribute.
    before: &'static str,
    separator: &'static str,
    with_pin: bool,
}

impl<W: Write> List<'_, W> {
    fn text(&mut self, name: &str, value: &Option<String>) -> fmt::Result {
        value
            .as_ref()
            .map_or(Ok(()), |value| self.encoded(name, value.as_bytes()))
    }

    fn encoded(&mut self, name: &str, bytes: &[u8]) -> fmt::Result {
        if holds_pin(name) && !self.with_pin {
            return self.shown(name, Some(REDACTED));
        }
        // As p11tool does; in the query, paths stay readable.
        let in_query = self.separator == "&";
        let plain = if in_query {
            |byte| is_plain(byte) || byte == b'/' || byte == b':'
        } else {
            is_plain
        };
        self.shown(name, Some(Encoded { bytes, plain }))
    }

    fn shown(&mut self, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
        let Some(value) = value else { return Ok(()) };
        write!(self.out, "{}{name}={value}", self.before)?;
        self.before = self.separator;
        Ok(())
    }
}

/// Prints percent-encoded what is not plain.
struct Encoded<'a> {
    bytes: &'a [u8],
    plain: fn(u8) -> bool,
}

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes
            .iter()
            .try_for_each(|&byte| match (self.plain)(byte) {
                true => f.write_char(char::from(byte)),
                false => write!(f, "%{byte:02X}"),
            })
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// Whether an attribute holds a PIN: `pin-value`, and what is meant by `pin`, `so-pin` or `PIN_VALUE`.
pub(crate) fn holds_pin(name: &str) -> bool {
    name != "pin-source"
        && name
            .split(['-', '_'])
            .any(|word| word.eq_ignore_ascii_case("pin"))
}
