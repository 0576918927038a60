//! The text form of rules: a word, then `field=value` for each field, separated by spaces.
//!
//! Labels are percent-encoded and byte strings are hexadecimal, so a value never holds a space.

use std::fmt::Write as _;
use std::str::{FromStr, SplitWhitespace};

use cryptoki_sys::CK_ULONG;

use crate::error::Error;
use crate::module::Function;
use crate::rules::{Action, Answer, Pin, When};

/// A line of rules on its way from text: the rule's word, then its fields in order.
pub(crate) struct Words<'a> {
    /// The word that names the rule.
    pub rule: &'a str,
    fields: std::iter::Peekable<SplitWhitespace<'a>>,
}

impl<'a> Words<'a> {
    pub fn new(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        Self {
            rule: words.next().unwrap_or_default(),
            fields: words.peekable(),
        }
    }

    /// Takes the next field if it has this name; an absent field is `None` to its type.
    pub fn take<T: Value>(&mut self, field: &'static str) -> Result<T, Error> {
        let value = self
            .fields
            .peek()
            .and_then(|word| word.strip_prefix(field)?.strip_prefix('='));
        if value.is_some() {
            self.fields.next();
        }
        T::from_text(value).ok_or_else(|| Error::BadField {
            rule: self.rule.to_owned(),
            field,
        })
    }

    pub fn finish(mut self) -> Result<(), Error> {
        match self.fields.next() {
            None => Ok(()),
            Some(field) => Err(Error::UnknownField {
                rule: self.rule.to_owned(),
                field: field.to_owned(),
            }),
        }
    }
}

/// The type of a rule's field.
pub(crate) trait Value: Sized {
    /// `None` leaves the field out of the line.
    fn to_text(&self) -> Option<String>;
    /// `None` in is an absent field, `None` out is text without meaning.
    fn from_text(text: Option<&str>) -> Option<Self>;
}

impl<T: Value> Value for Option<T> {
    fn to_text(&self) -> Option<String> {
        self.as_ref()?.to_text()
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(None),
            text => T::from_text(text).map(Some),
        }
    }
}

impl Value for String {
    fn to_text(&self) -> Option<String> {
        let mut text = String::new();
        for byte in self.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
                text.push(byte.into());
            } else {
                write!(text, "%{byte:02x}").ok()?;
            }
        }
        Some(text)
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        let mut parts = text?.split('%');
        let mut bytes = parts.next()?.as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
            bytes.extend(part.get(2..)?.as_bytes());
        }
        Self::from_utf8(bytes).ok()
    }
}

impl Value for Vec<u8> {
    fn to_text(&self) -> Option<String> {
        Some(self.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        let text = text?;
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
            .collect()
    }
}

/// Codes of the standard (CKR, CKA, CKM, CKO) and slot ids, as `0x…`.
impl Value for CK_ULONG {
    fn to_text(&self) -> Option<String> {
        Some(format!("{self:#x}"))
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        Self::from_str_radix(text?.strip_prefix("0x")?, 16).ok()
    }
}

impl Value for Vec<CK_ULONG> {
    fn to_text(&self) -> Option<String> {
        let codes: Option<Vec<_>> = self.iter().map(Value::to_text).collect();
        Some(codes?.join(","))
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        match text? {
            "" => Some(Self::new()),
            codes => codes
                .split(',')
                .map(|code| CK_ULONG::from_text(Some(code)))
                .collect(),
        }
    }
}

impl Value for u32 {
    fn to_text(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        text?.parse().ok()
    }
}

impl Value for Function {
    fn to_text(&self) -> Option<String> {
        Some(self.name().to_owned())
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        let name = text?;
        Self::ALL
            .into_iter()
            .find(|function| function.name() == name)
    }
}

impl Value for Pin {
    fn to_text(&self) -> Option<String> {
        Some(self.name().to_owned())
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        let name = text?;
        [Self::User, Self::So]
            .into_iter()
            .find(|pin| pin.name() == name)
    }
}

impl Value for When {
    fn to_text(&self) -> Option<String> {
        Some(match self {
            Self::Always => "always".to_owned(),
            Self::Next(calls) => format!("next:{calls}"),
            Self::Every(calls) => format!("every:{calls}"),
            Self::Random { probability, seed } => format!("random:{probability}:{seed}"),
        })
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        let mut parts = text?.split(':');
        let when = match parts.next()? {
            "always" => Self::Always,
            "next" => Self::Next(next(&mut parts)?),
            "every" => Self::Every(next(&mut parts)?),
            "random" => Self::Random {
                probability: next(&mut parts)?,
                seed: next(&mut parts)?,
            },
            _ => return None,
        };
        parts.next().is_none().then_some(when)
    }
}

fn next<'a, T: FromStr>(parts: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    parts.next()?.parse().ok()
}

impl Value for Action {
    fn to_text(&self) -> Option<String> {
        Some(match self {
            Self::Return(rv) => format!("return:{}", rv.to_text()?),
            Self::ReturnAfter(rv) => format!("return-after:{}", rv.to_text()?),
            Self::Delay(milliseconds) => format!("delay:{milliseconds}"),
            Self::Hang => "hang".to_owned(),
            Self::HangForever => "hang-forever".to_owned(),
            Self::Abort => "abort".to_owned(),
        })
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        Some(match text?.split_once(':') {
            Some(("return", rv)) => Self::Return(Value::from_text(Some(rv))?),
            Some(("return-after", rv)) => Self::ReturnAfter(Value::from_text(Some(rv))?),
            Some(("delay", milliseconds)) => Self::Delay(Value::from_text(Some(milliseconds))?),
            _ => match text? {
                "hang" => Self::Hang,
                "hang-forever" => Self::HangForever,
                "abort" => Self::Abort,
                _ => return None,
            },
        })
    }
}

impl Value for Answer {
    fn to_text(&self) -> Option<String> {
        Some(match self {
            Self::Hidden => "hidden".to_owned(),
            Self::Fails(rv) => format!("fails:{}", rv.to_text()?),
            Self::Value(bytes) => format!("value:{}", bytes.to_text()?),
        })
    }

    fn from_text(text: Option<&str>) -> Option<Self> {
        Some(match text?.split_once(':') {
            Some(("fails", rv)) => Self::Fails(Value::from_text(Some(rv))?),
            Some(("value", bytes)) => Self::Value(Value::from_text(Some(bytes))?),
            None if text? == "hidden" => Self::Hidden,
            _ => return None,
        })
    }
}
