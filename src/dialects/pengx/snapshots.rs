//! Snapshots of VMs.

use askama::Template;
use serde::Deserialize;

use super::fields::{Field, Judge};
use super::style::{Or, Style};
use super::times::{DateFormat, Shown};
use super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::{Snapshot, SnapshotId, VmId};
use crate::operations::snapshot::{self, DeleteSnapshot, RestoreSnapshot, StartSnapshot, TakeSnapshot};

/// Row 38.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let snapshots = call.core.read(move |core| snapshot::list(core, vm)).await?;
    Reply::ok(&SnapshotsView { snapshots: &snapshots, style: call.style() })
}

/// Row 36.
pub async fn take(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let command = call.body::<TakeBody>().await?.read(vm)?;
    let show = |taken: &Snapshot| Reply::created(&TakenView::new(taken, call.style()));
    call.perform_and_show(command, |done| show(&done.output)).await
}

/// Row 37.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    call.perform(DeleteSnapshot { vm: call.vm()?, snapshot: call.snapshot()? }, |_| Reply::NoContent).await
}

/// Row 39.
pub async fn restore(call: Call) -> Result<Reply, Failure> {
    let command = RestoreSnapshot { vm: call.vm()?, snapshot: call.snapshot()? };
    call.perform(command, |done| Reply::made(done.outcome)).await
}

/// Row 34.
pub async fn start(call: Call) -> Result<Reply, Failure> {
    let command = StartSnapshot { vm: call.vm()?, snapshot: call.snapshot()? };
    call.perform(command, |done| Reply::done(done.outcome)).await
}

/// Row 38: `snapshots`.
#[derive(Template)]
#[template(path = "pengx/snapshots.xml")]
pub struct SnapshotsView<'a> {
    pub snapshots: &'a [Snapshot],
    pub style: &'a Style,
}

/// Row 36: `snapshot`.
#[derive(Template)]
#[template(path = "pengx/snapshot.xml")]
pub struct TakenView<'a> {
    snapshot: &'a Snapshot,
    style: &'a Style,
    /// The manual's own, whatever the style says of dates.
    format: DateFormat,
}

impl<'a> TakenView<'a> {
    pub fn new(snapshot: &'a Snapshot, style: &'a Style) -> Self {
        Self { snapshot, style, format: DateFormat::default() }
    }

    fn parent(&self) -> Or<'_, SnapshotId> {
        self.style.or_null(self.snapshot.parent)
    }

    fn date(&self) -> Shown<'_> {
        self.format.show(self.snapshot.created_at, self.style.zone)
    }
}

/// Row 36.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TakeBody {
    name: Field,
    storlink: Field,
    desc: Field,
}

impl TakeBody {
    pub fn read(self, vm: VmId) -> Result<TakeSnapshot> {
        let mut judge = Judge::default();
        let name = judge.needed("name", self.name);
        let storlink = judge.needed("storlink", self.storlink);
        let desc = judge.desc("desc", self.desc);
        judge.done(|| Some(TakeSnapshot { vm, name: name?, storlink: storlink?, desc }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::dialects::pengx::{de, xml};
    use crate::model::{SnapshotKind, StorlinkId};

    const VM: &str = "0f6a9c1e-0000-4000-8000-000000000001";

    fn command(document: &str) -> Result<TakeSnapshot, String> {
        let body: TakeBody = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read(VM.parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_manuals_example_is_taken() {
        let example =
            "<snapshot>\n  <name>before upgrade</name>\n  <storlink>3</storlink>\n  <desc>a</desc>\n</snapshot>";
        let expected = TakeSnapshot {
            vm: VM.parse().unwrap(),
            name: "before upgrade".parse().unwrap(),
            storlink: StorlinkId(3),
            desc: "a".to_owned(),
        };
        assert_eq!(command(example), Ok(expected));
        assert_eq!(command("<s><name>a</name><storlink>1</storlink></s>").unwrap().desc, "");
    }

    #[test]
    fn every_problem_is_told() {
        assert_eq!(command("<snapshot/>").unwrap_err(), "name: is required; storlink: is required");
        let bad = "<s><name>&#9;</name><storlink>x</storlink><desc><b/></desc></s>";
        assert_eq!(
            command(bad).unwrap_err(),
            "name: is required; storlink: must be a whole number; desc: must be text, not elements"
        );
    }

    fn snapshot(parent: Option<&str>) -> Snapshot {
        Snapshot {
            id: "0f6a9c1e-0000-4000-8000-00000000000c".parse().unwrap(),
            vm: VM.parse().unwrap(),
            name: "a & b".to_owned(),
            kind: SnapshotKind::Saved,
            parent: parent.map(|id| id.parse().unwrap()),
            desc: "<c>".to_owned(),
            created_at: time("2017-07-26 15:04:05"),
        }
    }

    /// Whatever the setting says, the date of one that was taken is written in the manual's own format.
    #[test]
    fn what_is_shown_is_the_manuals() {
        let zone = chrono_tz::Asia::Seoul;
        let style = Style { dates: DateFormat::new("N j, Y, P"), zone, ..Style::default() };
        for (parent, shown) in [(None, "None"), (Some(VM), VM)] {
            assert_eq!(
                render(&TakenView::new(&snapshot(parent), &style)).unwrap(),
                format!(
                    "<snapshot id=\"0f6a9c1e-0000-4000-8000-00000000000c\">\n  <name>a &amp; b</name>\n  \
                     <type>SAVED</type>\n  <parent>{shown}</parent>\n  <date>2017-07-27 00:04:05</date>\n  \
                     <desc>&lt;c&gt;</desc>\n</snapshot>\n"
                )
            );
        }
        let listed = "\n  <snapshot id=\"0f6a9c1e-0000-4000-8000-00000000000c\">\n    <name>a &amp; b</name>\n    \
                      <date>July 27, 2017, 12:04 a.m.</date>\n    <description>&lt;c&gt;</description>\n  </snapshot>";
        let all = [snapshot(None), snapshot(Some(VM))];
        let view = SnapshotsView { snapshots: &all, style: &style };
        assert_eq!(render(&view).unwrap(), format!("<snapshots>{listed}{listed}\n</snapshots>\n"));
        let none = SnapshotsView { snapshots: &[], style: &style };
        assert_eq!(render(&none).unwrap(), "<snapshots>\n</snapshots>\n");
    }
}
