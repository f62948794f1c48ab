//! Overlays and block jobs: what is moved under the disks of a guest that runs.
//!
//! The QEMU that serves the disks of a guest is the truth about their images; what we keep and what Xen restarts the guest with
//! follow it. An HVM guest reaches a disk in two ways, which QEMU has opened apart, until a driver of its own has unplugged the
//! emulated one; before that its disks stay where they are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::config_file::ConfigFile;
use super::definitions::Kept;
use super::images::Images;
use super::parse::{Details, Row};
use super::qmp::{Fault, Monitor};
use super::{BY, Inner, devices, errors, path, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::{self, BlockJob, BlockJobStatus, Verb};
use crate::model::{DiskSpec, Format, Layer, VmId, VolumeSource};

/// Between two looks at a job that was told to end. The guest stands still meanwhile.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(100);
/// How the names of jobs, and of what we open in QEMU, begin.
const OURS: &str = "pengx-";

/// A disk as QEMU has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveDisk {
    /// What the guest writes to, by QEMU's name.
    node: String,
    pub(super) chain: Vec<Layer>,
    /// Open a second time, for an emulated disk.
    is_twice: bool,
}

#[derive(Deserialize)]
struct Device {
    /// Its name in QEMU's tree of devices.
    qdev: Option<String>,
    inserted: Option<Inserted>,
}

#[derive(Deserialize)]
struct Inserted {
    #[serde(rename = "node-name")]
    node: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    filename: PathBuf,
    format: String,
    #[serde(rename = "backing-image")]
    backing: Option<Box<Image>>,
}

#[derive(Deserialize)]
struct Job {
    /// Its name.
    device: String,
    len: u64,
    offset: u64,
    ready: bool,
}

#[derive(Deserialize)]
struct Screen {
    /// Its port.
    service: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "node-name")]
    name: String,
}

fn job_name(place: &str) -> String {
    format!("{OURS}{place}")
}

fn chain(mut image: Image) -> Result<Vec<Layer>> {
    let mut chain = Vec::new();
    loop {
        let format = image.format.parse().map_err(|_| {
            Error::refused(BY, format!("QEMU has {} open as {}", image.filename.display(), image.format))
        })?;
        chain.push(Layer { source: VolumeSource::File(image.filename), format });
        match image.backing {
            Some(below) => image = *below,
            None => return Ok(chain),
        }
    }
}

/// The port of the guest's screen, if it has one.
pub(super) fn screen(monitor: &mut Monitor) -> Option<u16> {
    let screen: Screen = monitor.ask("query-vnc", json!({})).ok()?;
    screen.service?.parse().ok()
}

/// By their places in the guest.
fn disks(monitor: &mut Monitor) -> Result<BTreeMap<String, LiveDisk>> {
    let devices: Vec<Device> = monitor.ask("query-block", json!({}))?;
    let mut opened: HashMap<PathBuf, u32> = HashMap::new();
    for inserted in devices.iter().filter_map(|device| device.inserted.as_ref()) {
        *opened.entry(inserted.image.filename.clone()).or_default() += 1;
    }
    let mut disks = BTreeMap::new();
    for device in devices {
        let (Some(qdev), Some(Inserted { node, image })) = (device.qdev, device.inserted) else { continue };
        let Some(place) = place_of(monitor, &qdev)? else { continue };
        let is_twice = opened.get(&image.filename).is_some_and(|times| *times > 1);
        disks.insert(place, LiveDisk { chain: chain(image)?, node, is_twice });
    }
    Ok(disks)
}

/// The place in the guest of a device. `None`: it is emulated. Names of nodes do not tell it: those of the images below the one
/// that a guest was started with are QEMU's own.
fn place_of(monitor: &mut Monitor, qdev: &str) -> Result<Option<String>> {
    match monitor.ask::<String>("qom-get", json!({ "path": qdev, "property": "vdev" })) {
        // With the number of a partition, of which a whole disk has none.
        Ok(place) => Ok(Some(place.trim_end_matches('0').to_owned())),
        Err(fault) => match Error::from(fault) {
            error if matches!(error.kind(), ErrorKind::Refused { .. }) => Ok(None),
            error => Err(error),
        },
    }
}

fn job(monitor: &mut Monitor, place: &str) -> Result<Option<Job>> {
    let jobs: Vec<Job> = monitor.ask("query-block-jobs", json!({}))?;
    Ok(jobs.into_iter().find(|job| job.device == job_name(place)))
}

fn nodes(monitor: &mut Monitor) -> Result<HashSet<String>> {
    let nodes: Vec<Node> = monitor.ask("query-named-block-nodes", json!({ "flat": true }))?;
    Ok(nodes.into_iter().map(|node| node.name).collect())
}

/// Opens an image, alone and whatever its header says; its name in QEMU.
fn open(monitor: &mut Monitor, place: &str, image: &Layer) -> Result<String> {
    let taken = nodes(monitor)?;
    let free = (0..).map(|n: u32| format!("{OURS}{place}-{n}")).find(|name| !taken.contains(name));
    let name = free.ok_or_else(|| Error::internal("every name is taken"))?;
    let mut node = vec![
        ("driver", json!(image.format.word())),
        ("node-name", json!(name)),
        ("discard", json!("unmap")),
        ("file", json!({ "driver": "file", "filename": path(&image.source), "discard": "unmap" })),
    ];
    if image.format == Format::Qcow2 {
        node.push(("backing", Value::Null));
    }
    monitor.tell("blockdev-add", Value::from_iter(node))?;
    Ok(name)
}

/// Closes all that no disk and no job uses any more: what they still use QEMU keeps.
pub(super) fn close_unused(monitor: &mut Monitor) -> Result<()> {
    let used: HashSet<String> = disks(monitor)?.into_values().map(|disk| disk.node).collect();
    loop {
        let mut closed = false;
        for name in nodes(monitor)?.iter().filter(|name| !name.starts_with('#') && !used.contains(*name)) {
            match monitor.tell("blockdev-del", json!({ "node-name": name })) {
                Ok(()) => closed = true,
                Err(fault) => {
                    let error = Error::from(fault);
                    if !matches!(error.kind(), ErrorKind::Refused { .. }) {
                        return Err(error);
                    }
                }
            }
        }
        if !closed {
            return Ok(());
        }
    }
}

impl Inner {
    pub(super) fn monitor(&self, row: &Row, patience: Duration) -> Result<Monitor> {
        // Not the one that `xl` itself talks to.
        Monitor::open(&self.monitor_path(row.domid), patience)
    }

    pub(super) fn monitor_path(&self, domid: u32) -> PathBuf {
        self.options.run_dir.join(format!("qmp-libxenstat-{domid}"))
    }

    /// The disks as QEMU has them. What we keep of the guest, and what Xen would restart it with, is the same afterwards.
    pub(super) fn settle(&self, row: &Row) -> Result<BTreeMap<String, LiveDisk>> {
        self.settle_by(&mut self.monitor(row, self.options.call_timeout)?, row)
    }

    pub(super) fn settle_by(&self, monitor: &mut Monitor, row: &Row) -> Result<BTreeMap<String, LiveDisk>> {
        let live = disks(monitor)?;
        self.amend_run(row, |run| {
            let kind = run.guest.kind();
            for disk in &mut run.spec.disks {
                let Some(now) = live.get(&devices::place(kind, disk.order)) else { continue };
                if let Some((leaf, below)) = now.chain.split_first() {
                    (disk.source, disk.format, disk.backing) = (leaf.source.clone(), leaf.format, below.to_vec());
                }
            }
        })?;
        Ok(live)
    }

    /// Changes what is kept of the run, and what Xen restarts the guest with. A domain that somebody else started has no such
    /// file, and needs none.
    pub(super) fn amend_run(&self, row: &Row, change: impl FnOnce(&mut ConfigFile)) -> Result<()> {
        let Some(before) = self.definitions.read(row.id, Kept::Run)? else { return Ok(()) };
        let mut run = before.clone();
        change(&mut run);
        if run == before {
            return Ok(());
        }
        self.definitions.write(&run, Kept::Run)?;
        if run.spec == before.spec {
            return Ok(());
        }
        let file = self.definitions.path(row.id, Kept::Run);
        let args = ["config-update".into(), row.domid.to_string().into(), file.into_os_string()];
        self.xl(self.options.call_timeout, args).map(drop).map_err(errors::explain)
    }

    fn none(id: VmId, order: u32) -> Error {
        Error::refused(BY, format!("vm {id} has no disk {order}"))
    }

    /// The disk, and its place in the guest; only of one whose disks can be moved.
    fn movable(&self, row: &Row, order: u32) -> Result<(String, LiveDisk)> {
        let details = self.details_of(row)?;
        let place = devices::place(details.kind, order);
        let live = details.disks.iter().any(|disk| disk.place == place);
        if !live {
            return Err(Self::none(row.id, order));
        }
        match self.settle(row)?.remove(&place) {
            Some(disk) if disk.is_twice => Err(unsupported(
                "move the data of a disk that an HVM guest reaches without a driver for Xen; shut the vm down first",
            )),
            Some(disk) => Ok((place, disk)),
            None => Err(unsupported("move the data of a disk that QEMU does not serve; shut the vm down first")),
        }
    }

    /// The images of a disk.
    pub(super) fn chain(&self, id: VmId, order: u32, verb: Verb) -> Result<Vec<VolumeSource>> {
        let row = self.find_active(verb, id)?;
        let details = self.details_of(&row)?;
        let place = devices::place(details.kind, order);
        let disk = details.disks.iter().find(|disk| disk.place == place).ok_or_else(|| Self::none(id, order))?;
        if self.has_movable_disks(&details)
            && let Some(disk) = self.settle(&row)?.remove(&place)
        {
            return Ok(disk.chain.into_iter().map(|layer| layer.source).collect());
        }
        let leaf = VolumeSource::File(PathBuf::from(&disk.path));
        let run = self.definitions.read(id, Kept::Run)?;
        let known = run.iter().flat_map(|run| &run.spec.disks).find(|disk| disk.order == order && disk.source == leaf);
        Ok(match known {
            Some(disk) => disk.chain().into_iter().map(|layer| layer.source).collect(),
            None => vec![leaf],
        })
    }

    pub(super) fn has_movable_disks(&self, details: &Details) -> bool {
        details.disks.iter().any(|disk| disk.backend == "qdisk")
    }

    pub(super) fn overlay_disks(&self, id: VmId, overlays: &[DiskSpec]) -> Result<()> {
        let row = self.find_active(Verb::OverlayDisks, id)?;
        if overlays.is_empty() {
            return Ok(());
        }
        let mut disks = Vec::new();
        for overlay in overlays {
            let (place, disk) = self.movable(&row, overlay.order)?;
            if job(&mut self.monitor(&row, self.options.call_timeout)?, &place)?.is_some() {
                return Err(hypervisor::job_runs(id, overlay.order));
            }
            if disk.chain != overlay.backing {
                return Err(hypervisor::not_on_this(BY, overlay));
            }
            disks.push((place, disk.node, Layer { source: overlay.source.clone(), format: overlay.format }));
        }
        let written = disks.iter().map(|(_, _, overlay)| path(&overlay.source)).collect();
        let _claim = self.claim(id, &Images { written, ..Images::default() })?;
        self.while_it_stands(&row, || {
            let mut monitor = self.monitor(&row, self.options.call_timeout)?;
            let moved = put_on(&mut monitor, &disks);
            if moved.is_err() {
                close_unused(&mut monitor)?;
            }
            moved
        })
    }

    pub(super) fn start_block_job(&self, id: VmId, order: u32, wish: &BlockJob) -> Result<()> {
        let row = self.find_active(Verb::StartBlockJob, id)?;
        let (place, disk) = self.movable(&row, order)?;
        if job(&mut self.monitor(&row, self.options.call_timeout)?, &place)?.is_some() {
            return Err(hypervisor::job_runs(id, order));
        }
        wish.check(BY, &disk.chain)?;
        let written = match wish {
            BlockJob::Commit { base, .. } => disk.chain.iter().find(|layer| layer.source == *base).cloned(),
            BlockJob::Mirror { to } => Some(to.clone()),
        };
        let files = written.iter().map(|layer| path(&layer.source)).collect();
        let _claim = self.claim(id, &Images { written: files, ..Images::default() })?;
        // First, so that nobody else takes what the job writes to.
        self.amend_run(&row, |run| {
            run.written.retain(|(of, _)| *of != order);
            run.written.extend(written.map(|layer| (order, layer)));
        })?;
        let mut monitor = self.monitor(&row, self.options.call_timeout)?;
        let begun = begin(&mut monitor, &place, &disk, wish, self.options.block_rate);
        if begun.is_err() && job(&mut monitor, &place)?.is_none() {
            close_unused(&mut monitor)?;
            self.job_is_over(&row, order)?;
        }
        begun
    }

    fn job_is_over(&self, row: &Row, order: u32) -> Result<()> {
        self.amend_run(row, |run| run.written.retain(|(of, _)| *of != order))
    }

    pub(super) fn block_job(&self, id: VmId, order: u32) -> Result<Option<BlockJobStatus>> {
        let row = self.find_active(Verb::BlockJob, id)?;
        let details = self.details_of(&row)?;
        let place = devices::place(details.kind, order);
        if !details.disks.iter().any(|disk| disk.place == place) {
            return Err(Self::none(id, order));
        }
        if !self.has_movable_disks(&details) {
            return Ok(None);
        }
        let mut monitor = self.monitor(&row, self.options.call_timeout)?;
        if let Some(job) = job(&mut monitor, &place)? {
            // QEMU's numbers are equal long before the guest can be moved.
            let total = job.len.max(1);
            let most = if job.ready { total } else { total - 1 };
            return Ok(Some(BlockJobStatus { done: job.offset.min(most), total, ready: job.ready }));
        }
        close_unused(&mut monitor)?;
        drop(monitor);
        self.settle(&row)?;
        self.job_is_over(&row, order)?;
        Ok(None)
    }

    pub(super) fn pivot(&self, id: VmId, order: u32) -> Result<()> {
        let row = self.find_active(Verb::Pivot, id)?;
        let place = match self.movable(&row, order) {
            Ok((place, _)) => place,
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported { .. }) => {
                return Err(hypervisor::not_ready(id, order));
            }
            Err(error) => return Err(error),
        };
        let patience = self.options.power_timeout;
        let is_ready = |job: Option<Job>| job.is_some_and(|job| job.ready);
        if !is_ready(job(&mut self.monitor(&row, patience)?, &place)?) {
            return Err(hypervisor::not_ready(id, order));
        }
        let goal = self
            .definitions
            .read(id, Kept::Run)?
            .and_then(|run| run.written.into_iter().find(|(of, _)| *of == order).map(|(_, layer)| layer.source));
        let done = self.while_it_stands(&row, || {
            let mut monitor = self.monitor(&row, patience)?;
            monitor.tell("job-complete", json!({ "id": job_name(&place) }))?;
            until_over(&mut monitor, &place)?;
            close_unused(&mut monitor)
        });
        done.map_err(|error| self.too_late(&row, error))?;
        let now = self.movable(&row, order).map_err(|error| self.too_late(&row, error))?.1;
        self.job_is_over(&row, order)?;
        if goal.is_some() && now.chain.first().map(|leaf| &leaf.source) != goal.as_ref() {
            return Err(Error::refused(
                "QEMU",
                format!("disk {order} of vm {id} could not be moved to the other image"),
            ));
        }
        Ok(())
    }

    /// Who hears `WrongState` takes it that nothing was begun.
    fn too_late(&self, row: &Row, error: Error) -> Error {
        match self.look(super::seen::Age::Fresh) {
            Ok(sight) if sight.row(row.id).is_none_or(|now| now.domid != row.domid) => {
                Error::refused(BY, "the guest was powered off meanwhile").caused_by(error)
            }
            _ => error,
        }
    }

    pub(super) fn abort_block_job(&self, id: VmId, order: u32) -> Result<()> {
        let sight = self.look(super::seen::Age::Fresh)?;
        let Some(row) = sight.row(id).filter(|row| super::is_active(row)) else { return Ok(()) };
        let details = self.details_of(row)?;
        if !self.has_movable_disks(&details) {
            return Ok(());
        }
        let place = devices::place(details.kind, order);
        let mut monitor = self.monitor(row, self.options.power_timeout)?;
        match monitor.tell("block-job-cancel", json!({ "device": job_name(&place), "force": true })) {
            Ok(()) => until_over(&mut monitor, &place)?,
            Err(Fault::Absent(_)) => {}
            Err(Fault::Other(error)) => return Err(error),
        }
        close_unused(&mut monitor)?;
        drop(monitor);
        self.settle(row)?;
        self.job_is_over(row, order)
    }
}

/// All at one instant, or none: each disk by its place and node, and its overlay.
fn put_on(monitor: &mut Monitor, disks: &[(String, String, Layer)]) -> Result<()> {
    let mut actions = Vec::new();
    for (place, node, overlay) in disks {
        let overlay = open(monitor, place, overlay)?;
        actions.push(json!({ "type": "blockdev-snapshot", "data": { "node": node, "overlay": overlay } }));
    }
    Ok(monitor.tell("transaction", json!({ "actions": actions }))?)
}

fn begin(monitor: &mut Monitor, place: &str, disk: &LiveDisk, wish: &BlockJob, rate: u64) -> Result<()> {
    let begun = match wish {
        BlockJob::Commit { top, base } => {
            let mut job = vec![
                ("job-id", json!(job_name(place))),
                ("device", json!(disk.node)),
                ("top", json!(path(top))),
                ("base", json!(path(base))),
                ("speed", json!(rate)),
            ];
            if disk.chain.first().is_some_and(|leaf| leaf.source != *top) {
                // What the header above it says from then on.
                job.push(("backing-file", json!(path(base))));
            }
            monitor.tell("block-commit", Value::from_iter(job))
        }
        BlockJob::Mirror { to } => {
            let target = open(monitor, place, to)?;
            let job = json!({
                "job-id": job_name(place), "device": disk.node, "target": target, "sync": "full",
                // QEMU 7.2 dies of a guest's write that comes before a job which writes to both sides has begun.
                "copy-mode": "background", "speed": rate,
            });
            monitor.tell("blockdev-mirror", job)
        }
    };
    Ok(begun?)
}

fn until_over(monitor: &mut Monitor, place: &str) -> Result<()> {
    let mut pause = FIRST_LOOK;
    while job(monitor, place)?.is_some() {
        thread::sleep(pause.min(monitor.left()?));
        pause = (pause * 2).min(LAST_LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_read_down_to_its_end() {
        let said = r#"{"filename": "/a", "format": "qcow2", "backing-image": {"filename": "/b", "format": "raw"}}"#;
        let read = chain(serde_json::from_str(said).unwrap()).unwrap();
        let files: Vec<_> = read.iter().map(|layer| (path(&layer.source), layer.format.word())).collect();
        assert_eq!(files, [("/a".into(), "qcow2"), ("/b".into(), "raw")]);
        let odd = chain(serde_json::from_str(r#"{"filename": "/a", "format": "vmdk"}"#).unwrap()).unwrap_err();
        assert_eq!(odd.to_string(), "Xen refused: QEMU has /a open as vmdk");
    }
}
