//! Password hashes of crypt(3) of the kind `$6$`, which accounts from elsewhere bring along. pengx makes none.

use sha_crypt::{Sha512Params, sha512_crypt_b64};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

use super::password::LENGTH;

const MARK: &str = "$6$";

/// What crypt computes for a hash that does not say how many.
const USUAL: u32 = 5_000;
/// Fewer crypt does not take, and more would keep a core busy for seconds.
const ROUNDS: std::ops::RangeInclusive<u32> = 1_000..=1_000_000;
const MOST_SALT: usize = 16;
const HASH_LENGTH: usize = 86;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShaCrypt<'a> {
    rounds: u32,
    salt: &'a str,
    hash: &'a str,
}

pub(super) fn is_one(text: &str) -> bool {
    text.starts_with(MARK)
}

impl<'a> ShaCrypt<'a> {
    /// From `$6$salt$hash` or `$6$rounds=N$salt$hash`, or why it is none.
    pub(super) fn read(text: &'a str) -> Result<Self, String> {
        let shape = || "must be $6$salt$hash or $6$rounds=N$salt$hash, as crypt writes it".to_owned();
        let rest = text.strip_prefix(MARK).ok_or_else(shape)?;
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            None => (USUAL, rest),
            Some(rest) => {
                let (number, rest) = rest.split_once('$').ok_or_else(shape)?;
                let rounds = number.parse().ok().filter(|rounds| ROUNDS.contains(rounds) && !number.starts_with('+'));
                let range = || format!("must have {} to {} rounds", ROUNDS.start(), ROUNDS.end());
                (rounds.ok_or_else(range)?, rest)
            }
        };
        let (salt, hash) = rest.split_once('$').ok_or_else(shape)?;
        let salty = salt.len() <= MOST_SALT && salt.bytes().all(|b| b.is_ascii_graphic());
        let hashed = hash.len() == HASH_LENGTH && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b"./".contains(&b));
        if salty && hashed { Ok(Self { rounds, salt, hash }) } else { Err(shape()) }
    }

    /// Takes a core for some milliseconds, at the most rounds for a second or two.
    pub(super) fn fits(&self, password: &[u8]) -> Result<bool> {
        // Each round reads all of it.
        if password.len() > *LENGTH.end() {
            return Ok(false);
        }
        let failed = |why: sha_crypt::CryptError| Error::internal(format!("a password cannot be checked: {why:?}"));
        let rounds = usize::try_from(self.rounds).map_err(|why| Error::internal(why.to_string()))?;
        let params = Sha512Params::new(rounds).map_err(failed)?;
        let found = sha512_crypt_b64(password, self.salt.as_bytes(), &params).map_err(failed)?;
        // How far two digests agree tells nothing of what they are of.
        Ok(Sha256::digest(found) == Sha256::digest(self.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By glibc; the first three are those that the algorithm was published with.
    const BY_GLIBC: &[(&str, &str)] = &[
        (
            "Hello world!",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ),
        (
            "Hello world!",
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
        ),
        (
            "we have a short salt string but not a short password",
            "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0",
        ),
        (
            "pass:word: 둘",
            "$6$rounds=1000$a.b/C9$Tbdo.RdKxexmTD7TG/lDAMuZozPLca/s0jf52cXLn0Ix1VD26ur0AAXmJ4dTZ9HDQoQJdf1pO8qM7XUc.ytzY/",
        ),
        ("", "$6$x$QSmr1Bx2g4O6BzKvdkgOcyU6H91X6I/XBv5pSalMhSPkwdH6Beo3F455xZJg0v//bxVK5F4OE5k1.0xuR26MK0"),
        ("admin", "$6$$sMRFTumkNQrHVoPorxwDcq28XtWGugIzXmpyXER0ZApF3uVMHwD.7MVB0k7LLEGcYOmDEXHTWL7gzURhWXDk./"),
        (
            "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
            "$6$rounds=1000$roundstoolow$RIcpobDeTa7MZHaW1BqTa8jsPbXcIgdxKh/mVy7of8sHLqN2po1NwrWEnrWYT5tUqSpGz9egkYLrrYhNAtsdc1",
        ),
    ];

    #[test]
    fn what_glibc_wrote_is_checked_as_glibc_does() {
        for (password, hash) in BY_GLIBC {
            let read = ShaCrypt::read(hash).unwrap();
            assert!(is_one(hash) && read.fits(password.as_bytes()).unwrap(), "{hash}");
            assert!(!read.fits(format!("{password}.").as_bytes()).unwrap(), "{hash}");
        }
        let read = ShaCrypt::read(BY_GLIBC[0].1).unwrap();
        assert!(!read.fits("x".repeat(1025).as_bytes()).unwrap());
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let (_, good) = BY_GLIBC[0];
        let with = |rounds: &str| good.replace("$6$", &format!("$6$rounds={rounds}$"));
        for (bad, says) in [
            ("", "must be $6$salt$hash"),
            ("$6$", "must be $6$salt$hash"),
            (&good.replace("$6$", "$5$"), "must be $6$salt$hash"),
            (&good[..good.len() - 1], "must be $6$salt$hash"),
            (&format!("{good}."), "must be $6$salt$hash"),
            (&format!("{good}$"), "must be $6$salt$hash"),
            (&good.replace("saltstring", "more than 16 bytes"), "must be $6$salt$hash"),
            (&with("999"), "must have 1000 to 1000000 rounds"),
            (&with("1000001"), "must have 1000 to 1000000 rounds"),
            (&with("99999999999"), "must have 1000 to 1000000 rounds"),
            (&with("+5000"), "must have 1000 to 1000000 rounds"),
            (&with(""), "must have 1000 to 1000000 rounds"),
        ] {
            let why = ShaCrypt::read(bad).unwrap_err();
            assert!(why.starts_with(says), "{bad}: {why}");
        }
        assert_eq!(ShaCrypt::read(&with("1000000")).unwrap().rounds, 1_000_000);
    }
}
