//! `pengx check`: each kind of drift is made by hand, and its sentence is read; what is repaired, and what is left alone.

mod drift;
mod program;
mod repairs;

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use pengx::hypervisor::Hypervisor;
use pengx::model::*;
use pengx::operations::Core;
use pengx::operations::check::{Report, Scope, check};
use pengx::store::disks;
use pengx::tasks::NoFaults;

use crate::harness::app::{App, Site};
use crate::harness::tool::qemu_img;

const ALL: Scope = Scope { domains: true };

/// A site with one VM: two disks, two interfaces, on `store1`.
struct Scene {
    app: App,
    storlink: StorlinkId,
    vm: VmId,
}

impl Scene {
    fn new() -> Self {
        Self::on(Site::new())
    }

    fn on(site: Site) -> Self {
        let app = site.start();
        let storlink = app.storlink();
        let template = app.template(storlink, Format::Qcow2);
        let vm = app.run(app.vm_of(storlink, Some(template), "web1")).unwrap();
        Self { app, storlink, vm }
    }

    /// As another process sees it, beside the server.
    fn report(&self) -> Report {
        let core = Core::beside(self.app.site.parts(self.app.store(), Arc::new(NoFaults)));
        check(&core, ALL).unwrap()
    }

    fn findings(&self) -> Vec<String> {
        let report = self.report();
        assert_eq!(report.blind, Vec::<String>::new());
        report.findings.into_iter().map(|finding| finding.said).collect()
    }

    #[track_caller]
    fn finds(&self, said: &str) {
        assert_eq!(self.findings(), [said]);
    }

    fn disk(&self, order: usize) -> Disk {
        self.app.store().read(|c| disks::of_vm(c, self.vm)).unwrap().remove(order)
    }

    fn path(&self, name: impl AsRef<str>) -> PathBuf {
        self.app.site.store_dir().join(name.as_ref())
    }

    fn text(&self, name: impl AsRef<str>) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn spec(&self) -> DomainSpec {
        self.app.site.fake.definitions().into_iter().find(|spec| spec.id == self.vm).unwrap()
    }

    fn define(&self, change: impl FnOnce(&mut DomainSpec)) {
        let mut spec = self.spec();
        change(&mut spec);
        self.app.site.fake.define(&spec).unwrap();
    }

    /// Puts the VM's first disk on so many overlays, in images, rows and definition.
    fn overlays(&self, count: usize) {
        for n in 0..count {
            let below = self.disk(0);
            let id = DiskId(RandomIds.uuid());
            let volume = VolumeName::new(id, Format::Qcow2);
            let (from, to) = (self.text(below.volume.as_str()), self.text(volume.as_str()));
            qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &from, &to]);
            let snapshot = Snapshot {
                id: SnapshotId(RandomIds.uuid()),
                vm: self.vm,
                name: format!("s{n}"),
                kind: SnapshotKind::Saved,
                parent: None,
                desc: String::new(),
                created_at: below.created_at,
            };
            let leaf = Disk { id, volume, backing: Some(below.id), ..below.clone() };
            self.app
                .store()
                .write_tx(|tx| {
                    pengx::store::snapshots::insert(tx, &snapshot)?;
                    disks::hand_over(tx, below.id, DiskOwner::Snapshot(snapshot.id), 0, below.backing)?;
                    disks::insert(tx, &leaf)
                })
                .unwrap();
            let path = PathBuf::from(to);
            self.define(|spec| spec.disks[0].source = VolumeSource::File(path));
        }
    }
}

/// Writes bytes into a file, wherever they belong.
fn scribble(path: &PathBuf, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn cut(path: &PathBuf, bytes: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}
