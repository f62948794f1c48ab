//! `xl`'s failures in our words. Its exit code says that something failed; what, only the text says, which is in one language
//! because every child runs with `LC_ALL=C`.

use crate::error::{Error, ErrorKind};
use crate::exec::{ExecError, Failure};

use super::BY;

/// The longest reason that a client is shown, in characters.
const MAX_WHY: usize = 400;
/// How `xl` says that not the action but Xen, or our right to it, is at fault.
const AWAY: [&str; 5] = [
    "Could not obtain handle on privileged command interface",
    "cannot open libxl",
    "cannot init xl context",
    "xs_open",
    "Cannot connect to xenstore",
];
/// What comes before a reason and says nothing to a reader.
const NOISE: [&str; 4] = ["libxl: error: ", "xc: error: ", "libxl: ", "panic: "];

/// Whether the program ended by itself and said no; else it may have done its work or not.
pub(super) fn said_no(error: &ExecError) -> bool {
    matches!(error.failure, Failure::Exit(_)) && !is_away(error)
}

fn is_away(error: &ExecError) -> bool {
    AWAY.iter().any(|words| error.stderr.contains(words))
}

/// The error of a command.
pub(super) fn explain(error: ExecError) -> Error {
    let kind = match &error.failure {
        Failure::Exit(_) if is_away(&error) => ErrorKind::Unavailable {
            what: format!("Xen (is this root of a control domain, and does xenstored run? {})", reason(&error)),
        },
        Failure::Exit(_) => ErrorKind::Refused { by: BY.to_owned(), why: reason(&error) },
        // It may have been done all the same, or be done later. Without xenstored `xl` waits for ever.
        Failure::Timeout(after) => {
            let why = format!("{} took more than {} s; is xenstored alive?", error.program(), after.as_secs());
            ErrorKind::Unavailable { what: format!("Xen ({why})") }
        }
        _ => return error.into(),
    };
    Error::new(kind).caused_by(error)
}

/// The first thing that went wrong: what follows is only how it was cleaned up.
fn reason(error: &ExecError) -> String {
    let lines: Vec<&str> = error.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let errors = |line: &&&str| line.contains("error: ");
    // The one that ran a script knows less of it than the script.
    let script = lines.iter().find_map(|line| line.split_once("script: ")).map(|(_, said)| said);
    let first = script.or_else(|| lines.iter().find(errors).copied()).or_else(|| lines.last().copied());
    let Some(line) = first else { return error.failure.to_string() };
    let mut why: String = clean(line).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some((end, _)) = why.char_indices().nth(MAX_WHY) {
        why.truncate(end);
        why.push_str("...");
    }
    why
}

/// Without places in the source of Xen and numbers of domains.
fn clean(mut line: &str) -> &str {
    loop {
        let shorter = NOISE.iter().find_map(|noise| line.strip_prefix(noise)).or_else(|| {
            let (before, rest) = line.split_once(':')?;
            let is_place = before.ends_with(".c")
                || before.starts_with("Domain ")
                || before.bytes().all(|b| b.is_ascii_digit())
                || is_function(before);
            is_place.then(|| rest.trim_start())
        });
        match shorter {
            Some(rest) if !rest.is_empty() => line = rest,
            _ => return line,
        }
    }
}

/// What stands behind the number of a line of source.
fn is_function(word: &str) -> bool {
    word.contains('_') && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failed(stderr: &str) -> ExecError {
        ExecError { argv: vec!["xl".into(), "create".into()], failure: Failure::Exit(3), stderr: stderr.to_owned() }
    }

    #[test]
    fn the_cause_is_shown_and_not_how_it_was_cleaned_up() {
        for (stderr, why) in [
            (
                "Parsing config from /x\nlibxl: error: libxl_device.c:455:libxl__device_disk_set_backend: Disk vdev=xvda failed to stat: /d/n.qcow2: No such file or directory\nlibxl: error: libxl_domain.c:1183:libxl__destroy_domid: Domain 17:Non-existant domain",
                "Disk vdev=xvda failed to stat: /d/n.qcow2: No such file or directory",
            ),
            (
                "xc: error: panic: xg_dom_boot.c:119: xc_dom_boot_mem_init: can't allocate low memory for domain: Out of memory",
                "can't allocate low memory for domain: Out of memory",
            ),
            (
                "libxl: error: libxl_exec.c:117:libxl_report_child_exitstatus: /etc/xen/scripts/vif-bridge online [1] exited with error status 1\nlibxl: error: libxl_device.c:1337:device_hotplug_child_death_cb: script: Could not find bridge device BR",
                "Could not find bridge device BR",
            ),
            (
                "libxl: error: libxl_dm.c:3381:device_model_postconfig_done: Domain 45:Post DM startup configs failed, rc=-9\nlibxl: error: libxl_create.c:1896:domcreate_devmodel_started: Domain 45:device model did not start: -9",
                "Post DM startup configs failed, rc=-9",
            ),
            ("x is an invalid domain identifier (rc=-6)", "x is an invalid domain identifier (rc=-6)"),
            ("", "it ended with code 3"),
        ] {
            let error = explain(failed(stderr));
            assert_eq!(*error.kind(), ErrorKind::Refused { by: "Xen".into(), why: why.into() }, "{stderr}");
        }
    }

    #[test]
    fn xen_that_does_not_answer_is_away_and_says_no_to_nothing() {
        let away = failed("xencall: error: Could not obtain handle on privileged command interface: Permission denied");
        assert!(!said_no(&away) && said_no(&failed("no")));
        assert!(matches!(explain(away).kind(), ErrorKind::Unavailable { .. }));
        let late = ExecError { failure: Failure::Timeout(Duration::from_secs(5)), ..failed("") };
        assert_eq!(explain(late).to_string(), "Xen (xl took more than 5 s; is xenstored alive?) does not answer");
    }
}
