//! An SSH public key, as it stands in an `id_*.pub` file, read strictly: it becomes a line that grants access.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// No key is longer; RSA of 16384 bits has 2.8 kB.
const MAX_CHARS: usize = 16 << 10;

/// What OpenSSH accepts today, less DSA.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Type and key; the comment is dropped. Prints as both words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SshKey {
    kind: &'static str,
    base64: String,
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.base64)
    }
}

impl FromStr for SshKey {
    type Err = String;

    /// One line: type, key, and perhaps a comment; no options before them.
    fn from_str(text: &str) -> Result<Self, String> {
        let line = text.trim();
        if line.len() > MAX_CHARS {
            return Err(format!("must have at most {MAX_CHARS} characters"));
        }
        if line.contains(['\n', '\r']) {
            return Err("must be one line".to_owned());
        }
        if line.contains(char::is_control) {
            return Err("must not have control characters".to_owned());
        }
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let kind = words.next().unwrap_or_default();
        let Some(kind) = TYPES.into_iter().find(|known| *known == kind) else {
            return Err(format!("must begin with one of {}", TYPES.join(", ")));
        };
        let base64 = words.next().ok_or_else(|| format!("must have the key after {kind}"))?;
        let blob = STANDARD.decode(base64).map_err(|why| format!("must have the key in base64 after {kind}: {why}"))?;
        if !is_of(kind, &blob) {
            return Err(format!("must hold a key of the type that it names, {kind}"));
        }
        Ok(Self { kind, base64: base64.to_owned() })
    }
}

/// A key begins with the length and the word of its own type (RFC 4253), and has more after it.
fn is_of(kind: &str, blob: &[u8]) -> bool {
    let Some((length, rest)) = blob.split_first_chunk::<4>() else { return false };
    let rest = rest.strip_prefix(kind.as_bytes());
    usize::try_from(u32::from_be_bytes(*length)) == Ok(kind.len()) && rest.is_some_and(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn a_key_is_taken_with_and_without_its_comment() {
        for text in [KEY.to_owned(), format!("{KEY} root@node1"), format!("  {KEY}  a \"b\" c\n")] {
            assert_eq!(text.parse::<SshKey>().unwrap().to_string(), KEY, "{text:?}");
        }
    }

    #[test]
    fn what_is_more_or_less_than_one_key_is_refused() {
        let (kind, base64) = KEY.split_once(' ').unwrap();
        let rsa = format!("ssh-rsa {base64}");
        for (text, why) in [
            ("", "must begin with one of ssh-ed25519"),
            ("ssh-dss AAAA", "must begin with one of"),
            (&format!("restrict {KEY}"), "must begin with one of"),
            (&format!("command=\"sh\" {KEY}"), "must begin with one of"),
            (&format!("# {KEY}"), "must begin with one of"),
            (&format!("{KEY}\n{KEY}"), "must be one line"),
            (&format!("{KEY}\r{KEY}"), "must be one line"),
            (&format!("{KEY} a\0b"), "must not have control characters"),
            (&format!("{kind}\t{base64}"), "must not have control characters"),
            (kind, "must have the key after ssh-ed25519"),
            (&format!("{kind} {}", &base64[..base64.len() - 1]), "in base64"),
            (&format!("{kind} !{base64}"), "in base64"),
            (&format!("{kind} AAAA"), "of the type that it names"),
            (&format!("{kind} AAAAC3NzaC1lZDI1NTE5"), "of the type that it names"),
            (&rsa, "of the type that it names"),
            (&format!("{KEY} {}", "x".repeat(MAX_CHARS)), "at most"),
        ] {
            let said = text.parse::<SshKey>().unwrap_err();
            assert!(said.contains(why), "{text:?}: {said}");
        }
    }
}
