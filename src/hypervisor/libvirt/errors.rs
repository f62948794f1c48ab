//! libvirt's errors in our words. Codes decide; texts, which may be in any language, only make the sentence nicer.

use virt::error::Error as VirtError;
use virt_sys as sys;

use crate::error::{Error, ErrorKind};
use crate::hypervisor::Verb;
use crate::model::{PowerState, VmId};

/// The longest reason that a client is shown, in characters.
const MAX_WHY: usize = 400;

/// What libvirt puts before its reasons, which says nothing to a reader.
const NOISE: [&str; 3] = ["internal error: ", "invalid argument: ", "XML error: "];

/// What libvirt puts before QEMU's, with the name of the command.
const COMMAND: &str = "unable to execute QEMU command '";

/// Why a call failed: libvirt said so, or we did.
#[derive(Debug)]
pub(super) enum Fault {
    Libvirt(VirtError),
    Ours(Error),
}

impl From<VirtError> for Fault {
    fn from(error: VirtError) -> Self {
        Self::Libvirt(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// The domain is gone, or never was.
pub(super) fn is_absent(error: &VirtError) -> bool {
    error.code().to_raw() == sys::VIR_ERR_NO_DOMAIN
}

/// The domain's state forbids it.
pub(super) fn is_wrong_state(error: &VirtError) -> bool {
    error.code().to_raw() == sys::VIR_ERR_OPERATION_INVALID
}

/// A block job may be there that excludes it, or is not ready for it.
pub(super) fn may_be_for_a_job(error: &VirtError) -> bool {
    matches!(error.code().to_raw(), sys::VIR_ERR_BLOCK_COPY_ACTIVE | sys::VIR_ERR_OPERATION_UNSUPPORTED)
}

/// The guest has not yet answered the last time that it was asked to let go of a device. Only a text tells: it is QEMU's,
/// which speaks English alone.
pub(super) fn is_asked_already(error: &VirtError) -> bool {
    error.message().contains("already in the process of unplug")
}

/// The guest has closed its drive while the disc was changed; as above, only a text tells.
pub(super) fn is_closed_tray(error: &VirtError) -> bool {
    error.message().contains("Tray of ") && error.message().contains(" is not open")
}

/// The guest's agent is not there, or does not answer.
pub(super) fn is_agent_silent(error: &VirtError) -> bool {
    let code = error.code().to_raw();
    matches!(code, sys::VIR_ERR_AGENT_UNRESPONSIVE | sys::VIR_ERR_AGENT_UNSYNCED | sys::VIR_ERR_AGENT_COMMAND_TIMEOUT)
}

/// The connection, not the action, is at fault.
pub(super) fn is_lost(error: &VirtError) -> bool {
    is_lost_code(error.code().to_raw(), error.domain().to_raw())
}

fn is_lost_code(code: u32, domain: u32) -> bool {
    match code {
        sys::VIR_ERR_NO_CONNECT | sys::VIR_ERR_INVALID_CONN | sys::VIR_ERR_RPC => true,
        sys::VIR_ERR_INTERNAL_ERROR | sys::VIR_ERR_SYSTEM_ERROR => domain == sys::VIR_FROM_RPC,
        _ => false,
    }
}

/// What was tried, for the sentence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deed {
    pub(super) verb: Verb,
    pub(super) vm: Option<VmId>,
}

impl Deed {
    fn phrase(self) -> String {
        match self.vm {
            Some(vm) => format!("{} vm {vm}", self.verb.phrase()),
            None => self.verb.phrase().to_owned(),
        }
    }
}

/// The error of a deed over a connection that works; `now` is the state that the domain was in afterwards.
pub(super) fn explain(error: VirtError, deed: Deed, now: PowerState) -> Error {
    let told = kind(error.code().to_raw(), error.message(), deed, now);
    Error::new(told).context(format!("to {}", deed.phrase())).caused_by(error)
}

fn kind(code: u32, message: &str, deed: Deed, now: PowerState) -> ErrorKind {
    let refused = || {
        let (by, why) = clean(message);
        ErrorKind::Refused { by: by.to_owned(), why }
    };
    match (code, deed.vm) {
        (sys::VIR_ERR_NO_DOMAIN, Some(vm)) => ErrorKind::NotFound { what: "vm", id: vm.to_string() },
        // While the domain runs it is not its state that forbids these, and libvirt says what.
        (sys::VIR_ERR_OPERATION_INVALID, Some(_)) if moves_images(deed.verb) && now.is_active() => refused(),
        (sys::VIR_ERR_BLOCK_COPY_ACTIVE, Some(vm)) if moves_images(deed.verb) => ErrorKind::WrongState {
            what: format!("vm {vm}"),
            is: "moving the data of a disk".into(),
            needs: "wait for the block job".into(),
        },
        (sys::VIR_ERR_OPERATION_INVALID, Some(vm)) => deed.verb.wrong_state(vm, now).kind().clone(),
        (sys::VIR_ERR_OPERATION_TIMEOUT | sys::VIR_ERR_BLOCK_COPY_ACTIVE | sys::VIR_ERR_RESOURCE_BUSY, _) => {
            ErrorKind::Busy {
                what: deed.vm.map_or_else(|| "libvirt".to_owned(), |vm| format!("vm {vm}")),
                by: "a job of libvirt runs".to_owned(),
                since: "before this call".to_owned(),
            }
        }
        (
            sys::VIR_ERR_NO_SUPPORT
            | sys::VIR_ERR_CONFIG_UNSUPPORTED
            | sys::VIR_ERR_ARGUMENT_UNSUPPORTED
            | sys::VIR_ERR_OPERATION_UNSUPPORTED,
            _,
        ) => ErrorKind::Unsupported {
            what: format!("{}: {}", deed.phrase(), clean(message).1),
            by: "libvirt".to_owned(),
        },
        _ => refused(),
    }
}

fn moves_images(verb: Verb) -> bool {
    use Verb::{AbortBlockJob, BlockJob, OverlayDisks, Pivot, StartBlockJob};
    matches!(verb, OverlayDisks | StartBlockJob | BlockJob | Pivot | AbortBlockJob)
}

/// Who speaks, and the part of the message that is of use: libvirt wraps QEMU's last words in how it came to hear them,
/// and that beginning varies with timing. What QEMU says begins with its own name on each line, after a time stamp.
fn clean(message: &str) -> (&'static str, String) {
    let mut by = "libvirt";
    let mut parts = Vec::new();
    for line in message.lines() {
        let words = match line.split_once("qemu-system-") {
            Some((_, rest)) => {
                by = "QEMU";
                let said = rest.split_once(": ").map_or(rest, |(_, said)| said);
                // `-blockdev {"driver": ...}: reason`: the option is ours and of no use to a reader.
                if said.starts_with('-') { said.rsplit_once("}: ").map_or(said, |(_, why)| why) } else { said }
            }
            None => {
                let said = NOISE.iter().find_map(|noise| line.strip_prefix(noise)).unwrap_or(line);
                match said.strip_prefix(COMMAND).and_then(|rest| rest.split_once("': ")) {
                    Some((_, said)) => {
                        by = "QEMU";
                        said
                    }
                    None => said,
                }
            }
        };
        if !words.trim().is_empty() {
            parts.push(words.trim());
        }
    }
    let mut why: String = parts.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some((end, _)) = why.char_indices().nth(MAX_WHY) {
        why.truncate(end);
        why.push_str("...");
    }
    (by, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm() -> VmId {
        "5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a10".parse().unwrap()
    }

    #[test]
    fn codes_decide_the_kind_and_any_language_will_do() {
        let id = vm().to_string();
        for (code, kind_name, sentence) in [
            (42, "not_found", format!("there is no vm {id}")),
            (55, "wrong_state", format!("vm {id} is RUNNING; it must be off to be started")),
            (38, "refused", "libvirt refused: Zugriff verweigert".to_owned()),
            (1, "refused", "libvirt refused: Zugriff verweigert".to_owned()),
            (9, "refused", "libvirt refused: Zugriff verweigert".to_owned()),
            (68, "busy", format!("vm {id} is busy: a job of libvirt runs since before this call")),
            (83, "busy", format!("vm {id} is busy: a job of libvirt runs since before this call")),
            (3, "unsupported", format!("libvirt cannot start vm {id}: Zugriff verweigert")),
            (67, "unsupported", format!("libvirt cannot start vm {id}: Zugriff verweigert")),
            (74, "unsupported", format!("libvirt cannot start vm {id}: Zugriff verweigert")),
            (84, "unsupported", format!("libvirt cannot start vm {id}: Zugriff verweigert")),
            (4711, "refused", "libvirt refused: Zugriff verweigert".to_owned()),
        ] {
            let deed = Deed { verb: Verb::Start, vm: Some(vm()) };
            let kind = kind(code, "Zugriff verweigert", deed, PowerState::Running);
            assert_eq!((kind.name(), kind.to_string()), (kind_name, sentence), "code {code}");
        }
    }

    #[test]
    fn what_forbids_to_move_images_is_a_job_or_the_state_or_said_by_libvirt() {
        let (id, why) = (vm(), "domain is not transient");
        for (code, verb, now, kind_name, sentence) in [
            (55, Verb::Pivot, PowerState::Shutdown, "wrong_state", format!("vm {id} is SHUTDOWN; it must be running")),
            (55, Verb::StartBlockJob, PowerState::Running, "refused", format!("libvirt refused: {why}")),
            (55, Verb::SetVcpus, PowerState::Running, "wrong_state", format!("vm {id} is RUNNING; it must be running")),
            (
                83,
                Verb::OverlayDisks,
                PowerState::Running,
                "wrong_state",
                format!("vm {id} is moving the data of a disk; wait for the block job"),
            ),
            (8, Verb::StartBlockJob, PowerState::Paused, "refused", format!("libvirt refused: {why}")),
            (38, Verb::OverlayDisks, PowerState::Paused, "refused", format!("libvirt refused: {why}")),
            (
                67,
                Verb::OverlayDisks,
                PowerState::Running,
                "unsupported",
                format!("libvirt cannot put overlays on the disks of vm {id}: {why}"),
            ),
            (
                84,
                Verb::StartBlockJob,
                PowerState::Running,
                "unsupported",
                format!("libvirt cannot start a block job on vm {id}: {why}"),
            ),
        ] {
            let kind = kind(code, why, Deed { verb, vm: Some(id) }, now);
            assert_eq!((kind.name(), kind.to_string()), (kind_name, sentence), "code {code}");
        }
    }

    #[test]
    fn a_dead_connection_is_told_by_code_and_domain() {
        for (code, domain, lost) in
            [(1, 7, true), (38, 7, true), (39, 0, true), (5, 0, true), (1, 10, false), (38, 18, false), (55, 7, false)]
        {
            assert_eq!(is_lost_code(code, domain), lost, "code {code} domain {domain}");
        }
    }

    #[test]
    fn the_useful_tail_of_a_message_is_kept() {
        for (message, by, why) in [
            (
                "Cannot access storage file '/s/a.qcow2': No such file or directory",
                "libvirt",
                "Cannot access storage file '/s/a.qcow2': No such file or directory",
            ),
            (
                "internal error: process exited while connecting to monitor: 2026-01-01T10:00:00.000001Z \
                 qemu-system-x86_64: -blockdev {\"node-name\":\"libvirt-1-format\",\"file\":\"x\"}: Failed to get \
                 \"write\" lock\nIs another process using the image [/s/a.qcow2]?",
                "QEMU",
                "Failed to get \"write\" lock; Is another process using the image [/s/a.qcow2]?",
            ),
            (
                "internal error: qemu unexpectedly closed the monitor: 2026-01-01T10:00:00Z qemu-system-x86_64: \
                 cannot set up guest memory 'pc.ram': Cannot allocate memory\n",
                "QEMU",
                "cannot set up guest memory 'pc.ram': Cannot allocate memory",
            ),
            (
                "internal error: unable to execute QEMU command 'device_add': Failed to get \"write\" lock",
                "QEMU",
                "Failed to get \"write\" lock",
            ),
            (
                "invalid argument: cannot set memory higher than max memory",
                "libvirt",
                "cannot set memory higher than max memory",
            ),
            ("", "libvirt", ""),
        ] {
            assert_eq!(clean(message), (by, why.to_owned()));
        }
        assert_eq!(clean(&"é".repeat(1000)).1.chars().count(), MAX_WHY + 3);
    }
}
