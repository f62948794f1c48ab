//! What can go wrong, in words that a client can act on.
//!
//! An [`Error`] is free of HTTP: every dialect maps [`ErrorKind`] to its own status and body, in one `match`.
//! The kind makes the sentence for the client; `context` and `source` are for the log and are never sent.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::model::MiB;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One field of a request that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub field: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing has this id. `what` is a noun: `vm`, `storlink`.
    NotFound {
        what: &'static str,
        id: String,
    },
    /// Every bad field of the input, named at once.
    Invalid {
        problems: Vec<Problem>,
    },
    /// The name is taken.
    Exists {
        what: &'static str,
        name: String,
    },
    /// Something else still needs it.
    InUse {
        what: String,
        by: String,
    },
    /// The object is in a state that forbids the action; `needs` says what to do first.
    WrongState {
        what: String,
        is: String,
        needs: String,
    },
    /// Another task holds a lock that this one needs.
    Busy {
        what: String,
        by: String,
        since: String,
    },
    /// This backend cannot do it.
    Unsupported {
        what: String,
        by: String,
    },
    /// The storage has too little room.
    NoSpace {
        what: String,
        need: MiB,
        free: MiB,
    },
    Unauthenticated,
    Forbidden {
        what: String,
    },
    /// The hypervisor or the storage said no; `why` is its own reason, cleaned of noise.
    Refused {
        by: String,
        why: String,
    },
    /// The action did not end in time; the backend answers otherwise.
    Timeout {
        action: String,
        after: Duration,
    },
    /// The database, the hypervisor or the storage does not answer at all.
    Unavailable {
        what: String,
    },
    Cancelled {
        what: String,
    },
    /// A defect of ours. The client reads a fixed sentence.
    Internal,
}

/// The kind, what it happened to on the way up, and the cause below.
pub struct Error {
    kind: ErrorKind,
    context: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind, context: Vec::new(), source: None }
    }

    pub fn not_found(what: &'static str, id: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound { what, id: id.to_string() })
    }

    /// One bad field; use [`Problems`] where several are checked.
    pub fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid { problems: vec![Problem { field: field.into(), why: why.into() }] })
    }

    pub fn refused(by: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused { by: by.into(), why: why.into() })
    }

    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable { what: what.into() })
    }

    pub fn wrong_state(what: impl Into<String>, is: impl Into<String>, needs: impl Into<String>) -> Self {
        Self::new(ErrorKind::WrongState { what: what.into(), is: is.into(), needs: needs.into() })
    }

    /// The problems of both where both are `Invalid`, each field named once; else this one.
    #[must_use]
    pub fn and_problems_of(mut self, other: Self) -> Self {
        if let (ErrorKind::Invalid { problems }, ErrorKind::Invalid { problems: more }) = (&mut self.kind, other.kind) {
            let new = more.into_iter().filter(|p| problems.iter().all(|known| known.field != p.field));
            problems.extend(new.collect::<Vec<_>>());
        }
        self
    }

    /// A defect: something that cannot be, was. `what` goes to the log alone.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal).context(what)
    }

    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        self.context.push(what.into());
        self
    }

    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The whole story on one line, for the log.
    pub fn story(&self) -> String {
        let mut line = self.to_string();
        for part in &self.context {
            line.push_str("; ");
            line.push_str(part);
        }
        let mut source = StdError::source(self);
        while let Some(cause) = source {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            source = cause.source();
        }
        line
    }
}

/// The sentence that a client reads.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { what, id } => write!(f, "there is no {what} {id}"),
            Self::Invalid { problems } => {
                for (i, p) in problems.iter().enumerate() {
                    write!(f, "{}{}: {}", if i == 0 { "" } else { "; " }, p.field, p.why)?;
                }
                Ok(())
            }
            Self::Exists { what, name } => write!(f, "a {what} named {name} exists already"),
            Self::InUse { what, by } => write!(f, "{what} is in use by {by}"),
            Self::WrongState { what, is, needs } => write!(f, "{what} is {is}; {needs}"),
            Self::Busy { what, by, since } => write!(f, "{what} is busy: {by} since {since}"),
            Self::Unsupported { what, by } => write!(f, "{by} cannot {what}"),
            Self::NoSpace { what, need, free } => {
                write!(f, "{what} has too little room: {need} MiB needed, {free} MiB free")
            }
            Self::Unauthenticated => f.write_str("credentials are missing or wrong"),
            Self::Forbidden { what } => write!(f, "you may not {what}"),
            Self::Refused { by, why } => write!(f, "{by} refused: {why}"),
            Self::Timeout { action, after } => write!(f, "{action} in {} s", after.as_secs_f32()),
            Self::Unavailable { what } => write!(f, "{what} does not answer"),
            Self::Cancelled { what } => write!(f, "{what} was cancelled"),
            Self::Internal => f.write_str("pengx met an error of its own; its log has the details"),
        }
    }
}

impl ErrorKind {
    /// The stored name of the kind, for task records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Invalid { .. } => "invalid",
            Self::Exists { .. } => "exists",
            Self::InUse { .. } => "in_use",
            Self::WrongState { .. } => "wrong_state",
            Self::Busy { .. } => "busy",
            Self::Unsupported { .. } => "unsupported",
            Self::NoSpace { .. } => "no_space",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden { .. } => "forbidden",
            Self::Refused { .. } => "refused",
            Self::Timeout { .. } => "timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::Cancelled { .. } => "cancelled",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.kind, self.story())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

/// Collects every problem of one input, so that a client reads them all in one answer.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.0.push(Problem { field: field.into(), why: why.into() });
    }

    /// Takes over the problems of another check; its other errors are passed on.
    pub fn absorb<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error { kind: ErrorKind::Invalid { problems }, .. }) => {
                self.0.extend(problems);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// `Err` with all that was added, or `Ok` if nothing was.
    pub fn done(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Invalid { problems: self.0 })) }
    }
}
