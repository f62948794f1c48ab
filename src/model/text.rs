//! Names that people give, and text that must not be shown.

use std::fmt;
use std::str::FromStr;

/// Whether XML 1.0 lets the character be in a document (`Char` in its grammar).
pub fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// The code points that Unicode keeps for nobody, such as U+10FFFF. XML allows most of them, but what is told to image tools
/// in JSON must not have them, so no path can.
pub fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE
}

/// 1 to 255 characters, trimmed, without control characters and what XML cannot say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    pub const MAX_CHARS: usize = 255;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let s = s.trim();
        if s.is_empty() {
            Err("must not be empty".to_owned())
        } else if s.chars().count() > Self::MAX_CHARS {
            Err(format!("must have at most {} characters", Self::MAX_CHARS))
        } else if s.chars().any(char::is_control) {
            Err("must not have control characters".to_owned())
        } else if let Some(c) = s.chars().find(|c| !is_xml_char(*c)) {
            Err(forbidden(c))
        } else {
            Ok(Self(s.to_owned()))
        }
    }
}

/// Why a text with this character cannot be taken.
pub fn forbidden(c: char) -> String {
    format!("must not have the character U+{:04X}, which XML cannot say", u32::from(c))
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A password. Printing it for debugging shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one who may have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
