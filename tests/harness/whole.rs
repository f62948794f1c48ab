//! Whether all that there is belongs together: the rows of a site, the files of its storlinks, what the images' own headers
//! say, and the domains of its hypervisor. It asks `qemu-img` and the hypervisor's own tools, and nothing of pengx but the
//! rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use pengx::model::*;
use pengx::store::{Store, backups, disks, reservations, snapshots, storlinks, templates, vms};

use super::app::assert_at_rest;
use super::libvirt::Libvirtd;
use super::wait::wait_until;

/// The images of a domain's disks by order, the one that is written to first.
pub type Chains = BTreeMap<u32, Vec<PathBuf>>;

/// What the tools of a hypervisor say of its domains, by uuid.
pub trait Domains {
    fn all(&self) -> BTreeSet<String>;
    fn running(&self) -> BTreeSet<String>;
    fn defined(&self, id: &str) -> Chains;
    /// Of one that runs; no disk has a job.
    fn live(&self, id: &str) -> Chains;
    /// Fails unless the last run of one that is off ended by the guest itself, or else by us; if that can be told.
    fn assert_ended(&self, id: &str, by_itself: bool);
}

impl Domains for Libvirtd {
    fn all(&self) -> BTreeSet<String> {
        self.virsh(&["list", "--all", "--uuid"]).split_whitespace().map(str::to_owned).collect()
    }

    fn running(&self) -> BTreeSet<String> {
        self.virsh(&["list", "--uuid"]).split_whitespace().map(str::to_owned).collect()
    }

    fn defined(&self, id: &str) -> Chains {
        images(&self.virsh(&["dumpxml", id, "--inactive"]))
    }

    fn live(&self, id: &str) -> Chains {
        images(&self.virsh(&["dumpxml", id]))
    }

    fn assert_ended(&self, id: &str, by_itself: bool) {
        let why = if by_itself { "shut off (shutdown)" } else { "shut off (destroyed)" };
        assert_eq!(self.virsh(&["domstate", "--reason", id]).trim(), why);
    }
}

/// Whether an image may have clusters that it does not use any more; only one that was open in a QEMU which was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaks {
    None,
    Few,
}

/// All rows of a site that name a file.
struct Rows {
    links: BTreeMap<i32, PathBuf>,
    all: Vec<Disk>,
    manifests: Vec<PathBuf>,
    vms: Vec<VmId>,
    going: Vec<Snapshot>,
}

impl Rows {
    fn of(store: &Store) -> Self {
        store
            .read(|c| {
                let links: BTreeMap<_, _> =
                    storlinks::all(c)?.into_iter().map(|link| (link.id.0, PathBuf::from(link.link))).collect();
                let mut rows =
                    Self { links, all: Vec::new(), manifests: Vec::new(), vms: Vec::new(), going: Vec::new() };
                for listing in vms::listing(c)? {
                    let vm = listing.vm.id;
                    rows.all.extend(disks::of_vm(c, vm)?);
                    for snapshot in snapshots::of_vm(c, vm)? {
                        rows.all.extend(disks::of_snapshot(c, snapshot.id)?);
                        if snapshot.kind == SnapshotKind::Going {
                            rows.going.push(snapshot);
                        }
                    }
                    rows.vms.push(vm);
                }
                for template in templates::all(c)? {
                    rows.all.extend(disks::of_template(c, template.id)?);
                }
                for backup in backups::all(c)? {
                    rows.all.extend(disks::of_backup(c, backup.id)?);
                    rows.manifests.push(rows.links[&backup.storlink.0].join(VolumeName::manifest(backup.id).as_str()));
                }
                Ok(rows)
            })
            .unwrap()
    }

    fn path(&self, disk: &Disk) -> PathBuf {
        self.links[&disk.storlink.0].join(disk.volume.as_str())
    }

    /// The disk and what it reads from, down to the last.
    fn chain(&self, disk: &Disk) -> Vec<&Disk> {
        let find = |id| self.all.iter().find(|disk| disk.id == id).unwrap_or_else(|| panic!("{disk:?} is on no row"));
        std::iter::successors(Some(find(disk.id)), |disk| disk.backing.map(find)).collect()
    }
}

/// The names of all files in the storlinks' directories, with the directories.
pub fn files(store: &Store) -> BTreeSet<PathBuf> {
    files_in(store.read(storlinks::all).unwrap().into_iter().map(|storlink| PathBuf::from(storlink.link)))
}

pub fn files_in(dirs: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    dirs.flat_map(|dir| std::fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().path()).collect()
}

/// No task is open and nothing is left of any; each file belongs to a row, and each row has its file, which says of itself
/// what the row says of it; the hypervisor has the domains of the rows, defined and running on the images that the rows name. How
/// many clusters leaked.
pub fn assert_whole(store: &Store, hypervisor: &impl Domains, leaks: Leaks) -> u64 {
    assert_at_rest(store);
    assert_eq!(store.read(reservations::all).unwrap(), [], "space is reserved for nobody");
    let rows = Rows::of(store);
    assert_eq!(rows.going, []);
    let mut named: BTreeSet<PathBuf> = rows.all.iter().map(|disk| rows.path(disk)).collect();
    assert_eq!(named.len(), rows.all.len(), "a file is named by two rows: {:#?}", rows.all);
    named.extend(rows.manifests.iter().cloned());
    assert_eq!(files_in(rows.links.values().cloned()), named, "files are on the left, what rows name is on the right");
    wait_until("no tool is at work", || Ok(tools(&rows).is_empty()));

    let domains: BTreeSet<String> = rows.vms.iter().map(VmId::to_string).collect();
    assert_eq!(hypervisor.all(), domains, "domains are on the left, rows on the right");
    let running = hypervisor.running();
    let mut written = BTreeSet::new();
    for vm in &rows.vms {
        let leaves = || rows.all.iter().filter(|disk| disk.owner == DiskOwner::Vm(*vm));
        let must: Chains = leaves()
            .map(|leaf| (leaf.order, rows.chain(leaf).into_iter().map(|disk| rows.path(disk)).collect()))
            .collect();
        let id = vm.to_string();
        assert_eq!(
            hypervisor.defined(&id),
            must,
            "the definition of vm {vm} is on the left, its rows are on the right"
        );
        if running.contains(&id) {
            assert_eq!(hypervisor.live(&id), must, "vm {vm} runs on what is on the left");
            written.extend(leaves().map(|leaf| rows.path(leaf)));
        }
    }
    rows.all.iter().map(|disk| assert_image(&rows, disk, !written.contains(&rows.path(disk)), leaks)).sum()
}

/// Its header says what its row says; and its tables are sound, if nobody writes to it.
fn assert_image(rows: &Rows, disk: &Disk, is_still: bool, leaks: Leaks) -> u64 {
    let path = rows.path(disk);
    let json = |verb: &str| -> serde_json::Value {
        let run = || {
            let args = [verb, "-U", "-f", disk.format.word(), "--output=json"];
            Command::new("qemu-img").args(args).arg(&path).output().unwrap()
        };
        let done = run();
        serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("qemu-img {verb}: {done:?}"))
    };
    let said = json("info");
    assert_eq!(said["virtual-size"], disk.size.bytes(), "{disk:?}: {said}");
    let below = rows.chain(disk).get(1).map(|below| (rows.path(below).display().to_string(), below.format.word()));
    let on = said["backing-filename"]
        .as_str()
        .map(|file| (file.to_owned(), said["backing-filename-format"].as_str().unwrap()));
    assert_eq!(on, below, "the header of {} is on the left", path.display());
    if disk.format != Format::Qcow2 || !is_still {
        return 0;
    }
    let checked = json("check");
    let count = |what: &str| checked[what].as_u64().unwrap_or(0);
    assert_eq!((count("corruptions"), count("check-errors")), (0, 0), "{disk:?}: {checked}");
    assert!(leaks == Leaks::Few || count("leaks") == 0, "{disk:?}: {checked}");
    count("leaks")
}

/// Of the disks in a domain's document, by order: the images of each, the one that is written to first. None has a job.
fn images(document: &str) -> Chains {
    assert!(!document.contains("<mirror"), "a job is left: {document}");
    let mut all = BTreeMap::new();
    for disk in document.split("<disk ").skip(1).filter(|disk| disk.contains("device='disk'")) {
        let disk = disk.split("</disk>").next().unwrap();
        let values = |begin: &'static str| disk.split(begin).skip(1).map(|rest| rest.split('\'').next().unwrap());
        let target = values("<target dev='").next().unwrap();
        let order = u32::from(target.strip_prefix("vd").unwrap().as_bytes()[0] - b'a');
        all.insert(order, values("<source file='").map(PathBuf::from).collect());
    }
    all
}

/// Tools that work on a storlink.
fn tools(rows: &Rows) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    let at_work = |line: &String| rows.links.values().any(|link| line.contains(link.to_str().unwrap()));
    lines.filter(|line| line.contains("qemu-img") && at_work(line)).collect()
}
