//! A password from standard input: typed unseen at a terminal, or one line of a pipe or file. Never from the command line
//! or the environment, which others on the host can read.

use std::io::{BufRead, Read, Write, stderr, stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::error::{Error, Result};
use crate::model::Secret;

/// More than any password may have; a longer line is cut and then refused by its length.
const MOST: u64 = 4096;

/// Asks twice at a terminal. `Invalid` where it cannot be read, or the two differ.
pub fn new_password() -> Result<Secret> {
    let terminal = stdin();
    if !isatty(&terminal) {
        return line();
    }
    let first = unseen("Password: ")?;
    if first == unseen("The same again: ")? {
        Ok(first)
    } else {
        Err(Error::invalid("password", "the two are not the same"))
    }
}

/// The hash of a password: a secret too, but one that nobody mistypes.
pub fn hash() -> Result<Secret> {
    if isatty(stdin()) { unseen("Hash: ") } else { line() }
}

fn unseen(prompt: &str) -> Result<Secret> {
    let _silence = Silence::begin()?;
    // Without a place for the prompt the password can be typed all the same.
    drop(write!(stderr(), "{prompt}").and_then(|()| stderr().flush()));
    let typed = line();
    // The key that ended the line was not shown either.
    drop(writeln!(stderr()));
    typed
}

/// Without its end, which may be that of a file from elsewhere.
fn line() -> Result<Secret> {
    let unreadable = |why: std::io::Error| Error::invalid("password", format!("standard input cannot be read: {why}"));
    let mut bytes = Vec::new();
    stdin().lock().take(MOST).read_until(b'\n', &mut bytes).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid("password", "must be UTF-8"))?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// A terminal that does not show what is typed, until it is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self> {
        let failed = |why| Error::invalid("password", format!("the terminal cannot be silenced: {why}"));
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // There is nothing left to try when this fails.
        tcsetattr(stdin(), OptionalActions::Flush, &self.0).ok();
    }
}
