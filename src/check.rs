//! `pengx check`: whether records, storage and hypervisor agree. Looks beside a running server or without one; what it
//! repairs, it repairs where no server runs.

use std::time::Duration;

use crate::config::Config;
use crate::error::Result;
use crate::operations::check::{Finding, Report, Scope, check, repair};
use crate::serve;

/// How long a repair may take to end once it is over.
const DRAIN: Duration = Duration::from_secs(10);

/// What to print, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub lines: Vec<String>,
    pub status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All agrees.
    Clean,
    /// Something does not, and is still so.
    Drift,
    /// Not everything could be looked at.
    Blind,
}

/// # Errors
/// When nothing could be looked at: the records are not there, or a server has them and this is a repair.
pub fn run(config: &Config, repairs: bool) -> Result<Outcome> {
    // Imaginary guests live in the memory of their server.
    let domains = !config.hypervisor.starts_with("fake:");
    let scope = Scope { domains };
    let (mut lines, report) = if repairs {
        let (core, _lock) = serve::instead(config)?;
        let repaired = repair(&core, scope);
        core.stop(DRAIN);
        let (done, report) = repaired?;
        (done.into_iter().map(|line| format!("repaired: {line}")).collect(), report)
    } else {
        (Vec::new(), check(&serve::beside(config)?, scope)?)
    };
    if !domains {
        lines.push("note: the fake hypervisor is in the memory of its server; domains were not compared".to_owned());
    }
    let status = told(&mut lines, report, repairs);
    Ok(Outcome { lines, status })
}

fn told(lines: &mut Vec<String>, report: Report, repairs: bool) -> Status {
    let status = match (report.blind.is_empty(), report.findings.is_empty()) {
        (false, _) => Status::Blind,
        (true, false) => Status::Drift,
        (true, true) => Status::Clean,
    };
    lines.extend(report.notes.into_iter().map(|note| format!("note: {note}")));
    lines.extend(report.blind.into_iter().map(|blind| format!("not looked at: {blind}")));
    for Finding { said, remedy, .. } in report.findings {
        let hint = match remedy {
            Ok(_) if repairs => String::new(),
            Ok(_) => "; pengx check --repair does something about it".to_owned(),
            Err(why) => format!("; {why}"),
        };
        let begin = if repairs { "left: " } else { "" };
        lines.push(format!("{begin}{said}{hint}"));
    }
    status
}
