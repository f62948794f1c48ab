//! Physical machines.

use askama::Template;

use super::style::or_empty;
use super::{Call, Failure, Reply};
use crate::model::Pm;
use crate::operations::pm::{self, Interface};

/// Row 2: this host.
pub async fn read(call: Call) -> Result<Reply, Failure> {
    let this = call.core.read(pm::this).await?;
    let status = if this.up { PmStatus::Up } else { PmStatus::Down };
    Reply::ok(&PmView { pm: &this.pm, status, interfaces: &this.interfaces })
}

/// Row 2: `pm`.
#[derive(Template)]
#[template(path = "pengx/pm.xml")]
pub struct PmView<'a> {
    pub pm: &'a Pm,
    pub status: PmStatus,
    /// NICs and bridges of the host.
    pub interfaces: &'a [Interface],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PmStatus {
    Up,
    /// No heartbeat.
    Down,
}

impl std::fmt::Display for PmStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Up => "Up",
            Self::Down => "Down",
        })
    }
}

/// Row 1.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 3.
pub async fn retrieve(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

/// Row 4.
pub async fn update_authorized_keys(call: Call) -> Result<Reply, Failure> {
    super::resources::not_yet(call).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::model::{Mac, MiB};

    #[test]
    fn the_document_is_the_manuals() {
        let pm = Pm {
            id: "0F6A9C1E-0000-4000-8000-00000000000a".parse().unwrap(),
            name: "node <1>".to_owned(),
            cpu: 8,
            memory: MiB(32000),
            ssh_pubkey: None,
            hypervisor: "fake".to_owned(),
            heartbeat_at: time("2017-07-26 15:04:05"),
            created_at: time("2017-07-26 15:04:05"),
            updated_at: time("2017-07-26 15:04:05"),
        };
        let interfaces = [
            Interface {
                name: "eth0".to_owned(),
                mac: Some(Mac([0, 0x16, 0x3e, 1, 2, 3])),
                ip: Some("10.0.0.1".parse().unwrap()),
            },
            Interface { name: "lo".to_owned(), mac: None, ip: None },
        ];
        let view = PmView { pm: &pm, status: PmStatus::Up, interfaces: &interfaces };
        assert_eq!(
            render(&view).unwrap(),
            r#"<pm id="0f6a9c1e-0000-4000-8000-00000000000a">
  <name>node &lt;1&gt;</name>
  <status>Up</status>
  <cpu_core>8</cpu_core>
  <memory>32000</memory>
  <interfaces>
    <interface>
      <name>eth0</name>
      <mac>00:16:3e:01:02:03</mac>
      <ip>10.0.0.1</ip>
    </interface>
    <interface>
      <name>lo</name>
      <mac></mac>
      <ip></ip>
    </interface>
  </interfaces>
</pm>
"#
        );
        let bare = PmView { pm: &pm, status: PmStatus::Down, interfaces: &[] };
        assert!(render(&bare).unwrap().contains("  <interfaces>\n  </interfaces>\n"));
    }
}
