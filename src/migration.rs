//! `pengx migration-receive` and `pengx migration-send`: what this program is as a child of sshd, and of the tool that sends
//! a guest.

use std::process::ExitCode;

use crate::cli::MigrationSend;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hypervisor::{receive_guest, send_guest};

/// Takes the guest in that the client of this sshd asks for. Returns only why not.
pub fn receive(config: &Config) -> Error {
    receive_guest(&config.domains_dir(), std::env::var_os("SSH_ORIGINAL_COMMAND").as_deref())
}

/// Status of the ssh that the guest is sent through.
///
/// # Errors
/// `Unavailable` or `Refused` when the guest was not sent to its end.
pub fn send(given: &MigrationSend) -> Result<ExitCode> {
    send_guest(given.domid, &given.monitor, &given.ssh)
}
