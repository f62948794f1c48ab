//! What can be a storlink: first what its fields say against one another, then what the storage says.

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Storlink, StorlinkId, StorlinkLevel, StorlinkType, Usage, is_noncharacter};
use crate::operations::Core;

const MAX_LINK_CHARS: usize = 1024;

/// Fields that contradict one another or can be nobody's, and why; of those that are known. Asks nobody.
pub fn contradictions(
    link: Option<&str>,
    kind: Option<StorlinkType>,
    level: Option<StorlinkLevel>,
) -> Vec<(&'static str, String)> {
    let mut bad = Vec::new();
    match (kind, level) {
        (Some(StorlinkType::Nfs), Some(StorlinkLevel::Block | StorlinkLevel::Object)) => {
            bad.push(("level", "must be FL for the type NFS".to_owned()));
        }
        (Some(StorlinkType::Ceph), Some(StorlinkLevel::File | StorlinkLevel::Block)) => {
            bad.push(("level", "must be OB for the type CEP".to_owned()));
        }
        _ => {}
    }
    if let Some(why) = link.and_then(|link| wrong_link(link, level)) {
        bad.push(("link", why));
    }
    bad
}

fn wrong_link(link: &str, level: Option<StorlinkLevel>) -> Option<String> {
    if link.chars().count() > MAX_LINK_CHARS {
        return Some(format!("must have at most {MAX_LINK_CHARS} characters"));
    }
    if link.chars().any(char::is_control) {
        return Some("must not have control characters".to_owned());
    }
    if let Some(c) = link.chars().find(|c| is_noncharacter(*c)) {
        return Some(format!("must not have the character U+{:04X}, with which no tool opens a path", u32::from(c)));
    }
    if level == Some(StorlinkLevel::File) && (!link.starts_with('/') || link.split('/').any(|part| part == "..")) {
        return Some("must be an absolute path without `..`".to_owned());
    }
    None
}

/// A storlink that is not one yet, or not any more.
pub(in crate::operations) fn draft(
    core: &Core,
    uuid: uuid::Uuid,
    link: &str,
    kind: StorlinkType,
    level: StorlinkLevel,
) -> Storlink {
    Storlink {
        id: StorlinkId(0),
        uuid,
        pm: core.pm.id,
        name: String::new(),
        link: link.to_owned(),
        kind,
        level,
        usage: Usage::default(),
        desc: String::new(),
        shared: false,
        marked: false,
    }
}

/// How full the link is; `Invalid` on `link` when it is not there or cannot be used.
pub fn check(core: &Core, link: &str, kind: StorlinkType, level: StorlinkLevel) -> Result<Usage> {
    let answer = (core.volumes)(&draft(core, uuid::Uuid::nil(), link, kind, level))
        .and_then(|driver| driver.check().and_then(|()| driver.usage()));
    answer.map_err(|error| match error.kind() {
        ErrorKind::Refused { why, .. } => Error::invalid("link", why.clone()),
        _ => error,
    })
}
