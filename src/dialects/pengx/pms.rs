//! Physical machines.

use askama::Template;

use super::style::or_empty;
use super::{Call, Failure, Reply};
use crate::model::{Network, Pm};
use crate::operations::pm::{self, AuthorizeKeys};

/// Row 2: this host.
pub async fn read(call: Call) -> Result<Reply, Failure> {
    let this = call.core.read(pm::this).await?;
    Reply::ok(&PmView::of(&this))
}

/// Row 3: any host of the site.
pub async fn retrieve(call: Call) -> Result<Reply, Failure> {
    let id = call.pm()?;
    let found = call.core.read(move |core| pm::find(core, id)).await?;
    Reply::ok(&PmView::of(&found))
}

/// Row 1: every host of the site.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let all = call.core.read(pm::list).await?;
    Reply::ok(&PmsView { pms: &all.iter().map(PmView::of).collect::<Vec<_>>() })
}

/// Row 4.
pub async fn update_authorized_keys(call: Call) -> Result<Reply, Failure> {
    call.perform(AuthorizeKeys, |done| Reply::made(done.outcome)).await
}

/// Row 1: `pms`.
#[derive(Template)]
#[template(path = "pengx/pms.xml")]
pub struct PmsView<'a> {
    pub pms: &'a [PmView<'a>],
}

/// Rows 2 and 3: `pm`.
#[derive(Template)]
#[template(path = "pengx/pm.xml")]
pub struct PmView<'a> {
    pub pm: &'a Pm,
    pub status: PmStatus,
    /// NICs, bridges and bonds of the host.
    pub interfaces: &'a [Network],
}

impl<'a> PmView<'a> {
    fn of(view: &'a pm::PmView) -> Self {
        let status = if view.up { PmStatus::Up } else { PmStatus::Down };
        Self { pm: &view.pm, status, interfaces: &view.interfaces }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::model::{Mac, MiB, NetworkKind, NetworkMethod};

    fn network(name: &str) -> Network {
        let (kind, method) = (NetworkKind::Nic, NetworkMethod::None);
        Network { name: name.to_owned(), kind, method, mac: None, ip: None, prefix: None }
    }

    fn node() -> Pm {
        Pm {
            id: "0F6A9C1E-0000-4000-8000-00000000000a".parse().unwrap(),
            name: "node <1>".to_owned(),
            cpu: 8,
            memory: MiB(32000),
            ssh_pubkey: None,
            hypervisor: "fake".to_owned(),
            heartbeat_at: time("2017-07-26 15:04:05"),
            created_at: time("2017-07-26 15:04:05"),
            updated_at: time("2017-07-26 15:04:05"),
        }
    }

    #[test]
    fn the_documents_are_the_manuals() {
        let pm = node();
        let interfaces = [
            Network {
                mac: Some(Mac([0, 0x16, 0x3e, 1, 2, 3])),
                ip: Some("10.0.0.1".parse().unwrap()),
                prefix: Some(24),
                ..network("eth0")
            },
            network("xenbr0"),
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
      <name>xenbr0</name>
      <mac></mac>
      <ip></ip>
    </interface>
  </interfaces>
</pm>
"#
        );
        let bare = PmView { pm: &pm, status: PmStatus::Down, interfaces: &[] };
        assert!(render(&bare).unwrap().contains("  <interfaces>\n  </interfaces>\n"));
        let all = [view, bare];
        assert_eq!(
            render(&PmsView { pms: &all }).unwrap(),
            r#"<pms>
  <pm id="0f6a9c1e-0000-4000-8000-00000000000a">
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
        <name>xenbr0</name>
        <mac></mac>
        <ip></ip>
      </interface>
    </interfaces>
  </pm>
  <pm id="0f6a9c1e-0000-4000-8000-00000000000a">
    <name>node &lt;1&gt;</name>
    <status>Down</status>
    <cpu_core>8</cpu_core>
    <memory>32000</memory>
    <interfaces>
    </interfaces>
  </pm>
</pms>
"#
        );
        assert_eq!(render(&PmsView { pms: &[] }).unwrap(), "<pms>\n</pms>\n");
    }
}
