//! The beginning of RFB (RFC 6143) on both sides of the gateway: it logs in at the screen, and lets the viewer in without a
//! password, since that one has shown who it is. Bytes in, bytes out; what follows the beginning is nobody's business here.
//!
//! RFB 3.3, 3.7 and 3.8 on either side, whatever the other side speaks.

use std::fmt;

use des::Des;
use des::cipher::{BlockEncrypt, KeyInit};

use crate::model::Secret;

/// The other side does not speak RFB as we do, or says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

fn fault<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(why.into()))
}

/// Security types.
const NONE: u8 = 1;
const PASSWORD: u8 = 2;
/// Of the reason for a no; a longer one is cut.
const MOST_WORDS: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V3,
    V7,
    V8,
}

impl Version {
    fn greeting(self) -> &'static [u8; 12] {
        match self {
            Self::V3 => b"RFB 003.003\n",
            Self::V7 => b"RFB 003.007\n",
            Self::V8 => b"RFB 003.008\n",
        }
    }

    /// The best of ours that it understands, too: there are servers that say 3.889 or 4.0, and clients that say 3.5.
    fn of(greeting: [u8; 12]) -> Result<Self, Fault> {
        let [b'R', b'F', b'B', b' ', major @ .., b'.', a, b, c, b'\n'] = greeting else {
            return fault("it does not begin as RFB does");
        };
        match (number(&major), number(&[a, b, c])) {
            (Some(3), Some(7)) => Ok(Self::V7),
            (Some(3), Some(0..=6)) => Ok(Self::V3),
            (Some(3..), Some(_)) => Ok(Self::V8),
            _ => fault("it speaks an RFB that nobody knows"),
        }
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// What one side has sent and nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Inbox(Vec<u8>);

impl Inbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// `None`: they have not all come.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.0.first_chunk()?;
        self.0.drain(..N);
        Some(taken)
    }

    fn take_list(&mut self, len: usize) -> Option<Vec<u8>> {
        (self.0.len() >= len).then(|| self.0.drain(..len).collect())
    }

    pub(super) fn rest(self) -> Vec<u8> {
        self.0
    }
}

/// The gateway as a client of the screen.
#[derive(Debug)]
pub(super) struct Login {
    password: Secret,
    stage: LoginStage,
}

#[derive(Debug, Clone, Copy)]
enum LoginStage {
    Greeting,
    /// It says which security it wants.
    Told,
    /// It says how many kinds of security it has, and then which.
    Count(Version),
    Offers(Version, u8),
    Challenge(Version),
    Result(Version),
    /// It says how long its reason is, and then which.
    Length,
    Reason(usize),
    Done,
}

impl Login {
    pub(super) fn new(password: Secret) -> Self {
        Self { password, stage: LoginStage::Greeting }
    }

    /// Takes what it can; whether the screen has let us in, and so waits for a client's first message.
    pub(super) fn step(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<bool, Fault> {
        while let Some(next) = self.advance(inbox, out)? {
            self.stage = next;
        }
        Ok(matches!(self.stage, LoginStage::Done))
    }

    /// `None`: more must come, or nothing more is needed.
    fn advance(&self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Option<LoginStage>, Fault> {
        Ok(match self.stage {
            LoginStage::Greeting => match inbox.take() {
                None => None,
                Some(greeting) => {
                    let version = Version::of(greeting)?;
                    out.extend_from_slice(version.greeting());
                    Some(if version == Version::V3 { LoginStage::Told } else { LoginStage::Count(version) })
                }
            },
            LoginStage::Told => match inbox.take().map(u32::from_be_bytes) {
                None => None,
                Some(0) => Some(LoginStage::Length),
                Some(1) => Some(LoginStage::Done),
                Some(2) => Some(LoginStage::Challenge(Version::V3)),
                Some(other) => return fault(format!("it wants security type {other}")),
            },
            LoginStage::Count(version) => inbox.take().map(|[count]| match count {
                0 => LoginStage::Length,
                count => LoginStage::Offers(version, count),
            }),
            LoginStage::Offers(version, count) => match inbox.take_list(count.into()) {
                None => None,
                Some(offers) => Some(choose(version, &offers, out)?),
            },
            LoginStage::Challenge(version) => inbox.take().map(|challenge| {
                out.extend_from_slice(&answer(challenge, self.password.reveal()));
                LoginStage::Result(version)
            }),
            LoginStage::Result(version) => match inbox.take().map(u32::from_be_bytes) {
                None => None,
                Some(0) => Some(LoginStage::Done),
                Some(_) if version == Version::V8 => Some(LoginStage::Length),
                Some(_) => return fault("it says no"),
            },
            LoginStage::Length => inbox
                .take()
                .map(u32::from_be_bytes)
                .map(|length| LoginStage::Reason(usize::try_from(length).unwrap_or(MOST_WORDS).min(MOST_WORDS))),
            LoginStage::Reason(length) => match inbox.take_list(length) {
                None => None,
                Some(reason) => return fault(format!("it says no: {}", String::from_utf8_lossy(&reason))),
            },
            LoginStage::Done => None,
        })
    }
}

fn choose(version: Version, offers: &[u8], out: &mut Vec<u8>) -> Result<LoginStage, Fault> {
    if offers.contains(&NONE) {
        out.push(NONE);
        // Only 3.8 confirms what needs no proof.
        return Ok(if version == Version::V8 { LoginStage::Result(version) } else { LoginStage::Done });
    }
    if offers.contains(&PASSWORD) {
        out.push(PASSWORD);
        return Ok(LoginStage::Challenge(version));
    }
    fault(format!("it wants one of security types {offers:?}"))
}

/// The challenge, encrypted with the password's first eight bytes. VNC reads the bits of a key from the other end than DES.
fn answer(challenge: [u8; 16], password: &str) -> [u8; 16] {
    let mut key = [0; 8];
    for (to, from) in key.iter_mut().zip(password.bytes()) {
        *to = from.reverse_bits();
    }
    let des = Des::new(&key.into());
    let mut answer = challenge;
    for block in answer.chunks_exact_mut(8) {
        des.encrypt_block(block.into());
    }
    answer
}

/// The gateway as the server of a viewer.
#[derive(Debug)]
pub(super) struct Welcome(WelcomeStage);

#[derive(Debug, Clone, Copy)]
enum WelcomeStage {
    Begin,
    Greeting,
    Choice(Version),
    /// Whether it shares the screen.
    First,
    Done,
}

/// The first message to the screen: shared with other viewers, whatever a viewer wants.
pub(super) const SHARED: u8 = 1;

impl Welcome {
    pub(super) fn new() -> Self {
        Self(WelcomeStage::Begin)
    }

    /// Takes what it can; whether the viewer is in. Then the screen must be sent [`SHARED`], and after it what the viewer
    /// has sent beyond.
    pub(super) fn step(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<bool, Fault> {
        while let Some(next) = self.advance(inbox, out)? {
            self.0 = next;
        }
        Ok(matches!(self.0, WelcomeStage::Done))
    }

    fn advance(&self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Option<WelcomeStage>, Fault> {
        Ok(match self.0 {
            WelcomeStage::Begin => {
                out.extend_from_slice(Version::V8.greeting());
                Some(WelcomeStage::Greeting)
            }
            WelcomeStage::Greeting => match inbox.take() {
                None => None,
                Some(greeting) => match Version::of(greeting)? {
                    Version::V3 => {
                        out.extend_from_slice(&u32::from(NONE).to_be_bytes());
                        Some(WelcomeStage::First)
                    }
                    version => {
                        out.extend_from_slice(&[1, NONE]);
                        Some(WelcomeStage::Choice(version))
                    }
                },
            },
            WelcomeStage::Choice(version) => match inbox.take() {
                None => None,
                Some([NONE]) => {
                    if version == Version::V8 {
                        out.extend_from_slice(&0_u32.to_be_bytes());
                    }
                    Some(WelcomeStage::First)
                }
                Some([other]) => return fault(format!("it chose security type {other}, which was not offered")),
            },
            WelcomeStage::First => inbox.take().map(|[_]| WelcomeStage::Done),
            WelcomeStage::Done => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Step = Box<dyn FnMut(&mut Inbox, &mut Vec<u8>) -> Result<bool, Fault>>;

    /// Feeds it whole, and again byte by byte, which makes no difference.
    fn run(side: impl Fn() -> Step, sent: &[u8]) -> Ran {
        let mut runs = [sent.len().max(1), 1].map(|piece| {
            let (mut step, mut inbox, mut out) = (side(), Inbox::default(), Vec::new());
            let mut last = step(&mut inbox, &mut out);
            for bytes in sent.chunks(piece) {
                if last.is_ok() {
                    inbox.push(bytes);
                    last = step(&mut inbox, &mut out);
                }
            }
            let rest = if last.is_ok() { inbox.rest() } else { Vec::new() };
            Ran { last: last.map_err(|Fault(why)| why), out, rest }
        });
        runs.swap(0, 1);
        let [a, b] = runs;
        assert_eq!(a, b);
        a
    }

    #[derive(Debug, PartialEq)]
    struct Ran {
        last: Result<bool, String>,
        out: Vec<u8>,
        rest: Vec<u8>,
    }

    fn login(sent: &[u8]) -> Ran {
        let side = || -> Step {
            let mut login = Login::new(Secret::new("s3cret".to_owned()));
            Box::new(move |inbox, out| login.step(inbox, out))
        };
        run(side, sent)
    }

    fn welcome(sent: &[u8]) -> Ran {
        let side = || -> Step {
            let mut welcome = Welcome::new();
            Box::new(move |inbox, out| welcome.step(inbox, out))
        };
        run(side, sent)
    }

    const CHALLENGE: [u8; 16] = *b"0123456789abcdef";

    #[test]
    fn we_log_in_at_every_kind_of_screen() {
        let proof = answer(CHALLENGE, "s3cret");
        let no = b"\0\0\0\x02no".as_slice();
        for (what, sent, out, last) in [
            (
                "3.8 none",
                vec![b"RFB 003.008\n\x01\x01\0\0\0\0".as_slice()],
                vec![b"RFB 003.008\n\x01".as_slice()],
                Ok(true),
            ),
            ("3.8 both", vec![b"RFB 003.008\n\x02\x02\x01\0\0\0\0"], vec![b"RFB 003.008\n\x01"], Ok(true)),
            (
                "3.8 password",
                vec![b"RFB 003.008\n\x02\x10\x02", &CHALLENGE, b"\0\0\0\0"],
                vec![b"RFB 003.008\n\x02", &proof],
                Ok(true),
            ),
            ("newer", vec![b"RFB 003.889\n\x01\x01\0\0\0\0"], vec![b"RFB 003.008\n\x01"], Ok(true)),
            ("4.1", vec![b"RFB 004.001\n\x01\x01\0\0\0\0"], vec![b"RFB 003.008\n\x01"], Ok(true)),
            ("3.7 none", vec![b"RFB 003.007\n\x01\x01"], vec![b"RFB 003.007\n\x01"], Ok(true)),
            (
                "3.7 password",
                vec![b"RFB 003.007\n\x01\x02", &CHALLENGE, b"\0\0\0\0"],
                vec![b"RFB 003.007\n\x02", &proof],
                Ok(true),
            ),
            ("3.3 none", vec![b"RFB 003.003\n\0\0\0\x01"], vec![b"RFB 003.003\n"], Ok(true)),
            ("3.5", vec![b"RFB 003.005\n\0\0\0\x01"], vec![b"RFB 003.003\n"], Ok(true)),
            (
                "3.3 password",
                vec![b"RFB 003.003\n\0\0\0\x02", &CHALLENGE, b"\0\0\0\0"],
                vec![b"RFB 003.003\n", &proof],
                Ok(true),
            ),
            ("more to come", vec![b"RFB 003.008\n\x02\x01"], vec![b"RFB 003.008\n"], Ok(false)),
            (
                "3.8 no password",
                vec![b"RFB 003.008\n\x01\x02", &CHALLENGE, b"\0\0\0\x01", no],
                vec![b"RFB 003.008\n\x02", &proof],
                Err("it says no: no"),
            ),
            (
                "3.3 no password",
                vec![b"RFB 003.003\n\0\0\0\x02", &CHALLENGE, b"\0\0\0\x01"],
                vec![b"RFB 003.003\n", &proof],
                Err("it says no"),
            ),
            ("3.8 no one", vec![b"RFB 003.008\n\0", no], vec![b"RFB 003.008\n"], Err("it says no: no")),
            ("3.3 no one", vec![b"RFB 003.003\n\0\0\0\0", no], vec![b"RFB 003.003\n"], Err("it says no: no")),
            (
                "VeNCrypt",
                vec![b"RFB 003.008\n\x01\x13"],
                vec![b"RFB 003.008\n"],
                Err("it wants one of security types [19]"),
            ),
            ("3.3 other", vec![b"RFB 003.003\n\0\0\0\x13"], vec![b"RFB 003.003\n"], Err("it wants security type 19")),
            ("HTTP", vec![b"HTTP/1.1 400 Bad"], vec![], Err("it does not begin as RFB does")),
            ("signs", vec![b"RFB +03.008\n"], vec![], Err("it speaks an RFB that nobody knows")),
            ("2.0", vec![b"RFB 002.000\n"], vec![], Err("it speaks an RFB that nobody knows")),
        ] {
            let ran = login(&sent.concat());
            let last: Result<bool, String> = last.map_err(str::to_owned);
            assert_eq!((ran.last, ran.out), (last, out.concat()), "{what}");
        }
        let endless = [b"RFB 003.008\n\0\xff\xff\xff\xff".as_slice(), &[b'x'; 600]].concat();
        assert_eq!(login(&endless).last.unwrap_err().len(), "it says no: ".len() + MOST_WORDS);
        assert_eq!(login(b"RFB 003.008\n\x01\x01\0\0\0\0rest").rest, b"rest");
    }

    /// As openssl says: `openssl enc -des-ecb -K <the password's bytes, each with its bits reversed>`.
    #[test]
    fn the_password_is_a_key_read_backwards() {
        let hex = |bytes: [u8; 16]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(answer(CHALLENGE, "s3cret")), "cb1c0c7f3228bb937506917ca00de5e1");
        assert_eq!(hex(answer([0; 16], "")), "8ca64de9c1b123a78ca64de9c1b123a7");
        assert_eq!(answer(CHALLENGE, "12345678"), answer(CHALLENGE, "123456789"), "eight bytes count");
        assert_ne!(answer(CHALLENGE, "12345678"), answer(CHALLENGE, "1234567"));
    }

    #[test]
    fn every_kind_of_viewer_is_let_in_without_a_password() {
        for (what, sent, out, last, rest) in [
            (
                "3.8",
                b"RFB 003.008\n\x01\x01".as_slice(),
                b"RFB 003.008\n\x01\x01\0\0\0\0".as_slice(),
                Ok(true),
                "".as_bytes(),
            ),
            ("3.8 that goes on", b"RFB 003.008\n\x01\0more", b"RFB 003.008\n\x01\x01\0\0\0\0", Ok(true), b"more"),
            ("3.7", b"RFB 003.007\n\x01\x01", b"RFB 003.008\n\x01\x01", Ok(true), b""),
            ("3.3", b"RFB 003.003\n\x01", b"RFB 003.008\n\0\0\0\x01", Ok(true), b""),
            ("3.5", b"RFB 003.005\n\0", b"RFB 003.008\n\0\0\0\x01", Ok(true), b""),
            ("nothing yet", b"", b"RFB 003.008\n", Ok(false), b""),
            ("half", b"RFB 003.0", b"RFB 003.008\n", Ok(false), b"RFB 003.0"),
            ("no first message", b"RFB 003.008\n\x01", b"RFB 003.008\n\x01\x01\0\0\0\0", Ok(false), b""),
            (
                "a password",
                b"RFB 003.008\n\x02",
                b"RFB 003.008\n\x01\x01",
                Err("it chose security type 2, which was not offered"),
                b"",
            ),
            ("other", b"GET / HTTP/1.1\r\n", b"RFB 003.008\n", Err("it does not begin as RFB does"), b""),
        ] {
            let last: Result<bool, String> = last.map_err(str::to_owned);
            assert_eq!(welcome(sent), Ran { last, out: out.to_vec(), rest: rest.to_vec() }, "{what}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_nobody_panics(bytes in prop::collection::vec(any::<u8>(), 0..700), begin in 0_usize..5) {
            let begins: [&[u8]; 5] = [b"", b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n", b"RFB "];
            let sent = [begins[begin], &bytes].concat();
            for ran in [login(&sent), welcome(&sent)] {
                // A greeting, a choice and a proof at most, or a greeting, an offer and a result.
                prop_assert!(ran.out.len() <= 29);
            }
        }
    }
}
