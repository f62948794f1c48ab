//! Puts a VM back as a backup has it: over the VM that is there, whose present state is kept as a snapshot, or in the place
//! of one that was deleted.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Access, BackupConfig, BackupId, Compensation, Disk, DiskId, DiskOwner, Lane, Layer, Lock, MiB, Resource, Seen,
    Snapshot, TaskKind, Vm, VmId, VolumeName,
};
use crate::operations::domain::{Machine, Plug};
use crate::operations::snapshot::Needs;
use crate::operations::vm::{Known, check, new_vnc_password, state_now, wrong_state};
use crate::operations::{Core, Operation, nic, snapshot};
use crate::storage::{Content, Control, NewVolume, VolumeDriver};
use crate::store::nics::{self, NewNic};
use crate::store::{disks, templates, vms};
use crate::tasks::Work;

use super::manifest::{self, Manifest};
use super::{FORMAT, Kept, noun, subject};

/// What the tables of a new image take.
const TABLES: MiB = MiB(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreBackup {
    /// There and off, or deleted.
    pub vm: VmId,
    pub backup: BackupId,
}

impl Operation for RestoreBackup {
    const KIND: TaskKind = TaskKind::BackupRestore;
    type Output = ();

    fn lane(&self) -> Lane {
        Lane::Long
    }

    fn subject(&self, core: &Core) -> Result<String> {
        subject(core, self.vm, self.backup)
    }

    fn locks(&self) -> Vec<Lock> {
        vec![
            Lock { resource: Resource::Vm(self.vm), access: Access::Changes },
            Lock { resource: Resource::Backup(self.backup), access: Access::Uses },
        ]
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let Plan { present, machine, nics, copies, needs, undefine, told } = Plan::make(self, core)?;
        needs.reserve(core, work)?;
        let share = 100 / u32::try_from(copies.len().max(1)).unwrap_or(100);
        for (n, (disk, make)) in (0..).zip(machine.disks.iter().zip(&copies)) {
            let driver = machine.driver(core, disk)?;
            let undo = Compensation::DeleteVolume { storlink: disk.storlink, volume: disk.volume.clone() };
            let reporter = work.reporter();
            let step = format!("restoring disk {}", disk.order);
            let progress = |percent: u32| reporter.progress(share * n + percent * share / 100, &step);
            let control = Control { cancel: reporter.cancel_flag(), progress: &progress };
            work.step(&undo, || driver.create(&disk.volume, make, &control))?;
        }
        let spec = machine.spec(core)?;
        match &undefine {
            Some(undo) => work.step(undo, || core.hypervisor.define(&spec))?,
            None => work.act(|| core.hypervisor.define(&spec))?,
        }
        core.inventory.refresh(spec.id)?;
        work.settle(&told, &[], |tx| {
            match &present {
                Some(present) => {
                    snapshot::keep(tx, &present.kept, &present.disks)?;
                    nics::remove_of_vm(tx, self.vm)?;
                    vms::update(tx, &machine.vm)?;
                    vms::set_snapshot(tx, self.vm, None)?;
                }
                None => vms::insert(tx, &machine.vm)?,
            }
            machine.disks.iter().try_for_each(|disk| disks::insert(tx, disk))?;
            nics.iter().try_for_each(|nic| nics::insert(tx, nic).map(drop))
        })
    }
}

/// What will be there; nothing has been touched yet.
struct Plan {
    present: Option<Present>,
    /// As it will be.
    machine: Machine,
    nics: Vec<NewNic>,
    /// One for each disk of the machine.
    copies: Vec<NewVolume>,
    needs: Needs,
    /// How its definition is undone. A VM whose images are lost has none that could be brought back; every start makes it anew.
    undefine: Option<Compensation>,
    told: String,
}

impl Plan {
    fn make(wish: RestoreBackup, core: &Core) -> Result<Self> {
        let kept = Kept::load(core, wish.vm, wish.backup)?;
        let (backup, config) = (&kept.backup, &kept.backup.config);
        let present = present(core, wish.vm)?;
        match core.store.read(|c| vms::find_by_name(c, &config.name))? {
            Some(other) if other.id != wish.vm => {
                let name = config.name.clone();
                return Err(Error::new(ErrorKind::Exists { what: "vm", name })
                    .context(format!("{} would have this name", noun(backup))));
            }
            _ => {}
        }
        let source = kept.driver(core)?;
        let manifest = manifest::glance(source.as_ref(), backup, &kept.disks)?;
        let can = check(core, &known(config)).map_err(|error| match error.kind() {
            ErrorKind::Invalid { .. } => Error::refused("pengx", format!("{}: {error}", noun(backup))),
            _ => error,
        })?;
        let nics = draft_nics(core, wish.vm, config, can.mac_prefix)?;
        let mut machine = Machine {
            vm: row(core, wish.vm, present.as_ref().map(|there| &there.vm), config)?,
            disks: Vec::new(),
            below: HashMap::new(),
            plugs: nics.iter().map(|nic| Plug { mac: nic.mac, switch: nic.switch.clone() }).collect(),
            storlinks: HashMap::new(),
        };
        let (copies, needs) = place(core, &kept, &manifest, source.as_ref(), present.as_ref(), &mut machine)?;
        let undefine = match &present {
            Some(there) => there.spec(core).is_ok().then_some(Compensation::Redefine { vm: wish.vm }),
            None => Some(Compensation::Undefine { vm: wish.vm }),
        };
        let mut told = format!("vm {} is restored from backup {}", config.name, backup.name);
        let present = present.map(|there| {
            let kept = snapshot::automatic(core, &there.vm, format!("kept when backup {} was restored", backup.name));
            Present { disks: there.disks, kept }
        });
        if let Some(Present { kept, .. }) = &present {
            told.push_str(&format!("; what it was before is kept as snapshot {}", kept.name));
        }
        Ok(Self { present, machine, nics, copies, needs, undefine, told })
    }
}

/// What is there, and makes way.
struct Present {
    disks: Vec<Disk>,
    /// What they become.
    kept: Snapshot,
}

/// The VM that is there, and off.
fn present(core: &Core, id: VmId) -> Result<Option<Machine>> {
    let machine = match Machine::load(core, id) {
        Ok(machine) => machine,
        Err(gone) if matches!(gone.kind(), ErrorKind::NotFound { what: "vm", .. }) => {
            // What somebody else has defined there is not ours to replace.
            return match core.hypervisor.domain(id)? {
                Some(_) => {
                    let is = "known to the hypervisor, and not to pengx";
                    Err(Error::wrong_state(format!("vm {id}"), is, "undefine its domain first"))
                }
                None => Ok(None),
            };
        }
        Err(other) => return Err(other),
    };
    let state = state_now(core, id)?;
    if state.is_active() {
        return Err(wrong_state(format!("vm {}", machine.vm.name), state, "shut it down before restoring it"));
    }
    Ok(Some(machine))
}

fn known(config: &BackupConfig) -> Known {
    Known {
        cpu: Some(config.cpu),
        memory: Some(config.memory),
        maxmem: Some(config.maxmem),
        networks: config.nics.iter().map(|nic| nic.switch.clone()).collect(),
        ..Known::default()
    }
}

/// With their MAC addresses where nobody else has them now.
fn draft_nics(core: &Core, vm: VmId, config: &BackupConfig, prefix: [u8; 3]) -> Result<Vec<NewNic>> {
    let mut drafted: Vec<NewNic> = Vec::new();
    for kept in &config.nics {
        let is_free = core.store.read(|c| {
            let own = nics::of_vm(c, vm)?.iter().any(|nic| nic.mac == kept.mac);
            Ok(own || !nics::mac_taken(c, kept.mac)?)
        })?;
        let mac = if is_free {
            kept.mac
        } else {
            let beside: Vec<_> = drafted.iter().map(|nic| (nic.name.as_str(), nic.mac)).collect();
            nic::draft(core, vm, &kept.switch, prefix, &beside)?.mac
        };
        let (name, switch, ip) = (kept.name.clone(), kept.switch.clone(), kept.ip.clone());
        drafted.push(NewNic { uuid: core.ids.uuid(), vm, name, mac, switch, ip });
    }
    Ok(drafted)
}

/// What the backup knows comes from it; the rest stays, or is new.
fn row(core: &Core, id: VmId, present: Option<&Vm>, config: &BackupConfig) -> Result<Vm> {
    let now = core.clock.now();
    let base = match present {
        Some(present) => present.clone(),
        None => Vm {
            id,
            template: core.store.read(|c| {
                Ok(match config.template {
                    Some(template) => templates::find(c, template)?.map(|found| found.id),
                    None => None,
                })
            })?,
            pm: core.pm.id,
            name: String::new(),
            cpu: 0,
            memory: MiB(0),
            maxmem: MiB(0),
            desc: String::new(),
            pcivf: None,
            iso: None,
            vnc_password: new_vnc_password(core),
            snapshot: None,
            seen: Seen::default(),
            created_at: now,
            recent_booted_at: None,
            updated_at: now,
        },
    };
    Ok(Vm {
        name: config.name.clone(),
        desc: config.desc.clone(),
        cpu: config.cpu,
        memory: config.memory,
        maxmem: config.maxmem,
        snapshot: None,
        updated_at: now,
        ..base
    })
}

/// Gives the machine its disks: each where the VM's disk of that order is now, in its format; else beside its first one; else
/// beside the backup. What is to be copied, and how much room that needs where.
fn place(
    core: &Core,
    kept: &Kept,
    manifest: &Manifest,
    source: &dyn VolumeDriver,
    present: Option<&Machine>,
    machine: &mut Machine,
) -> Result<(Vec<NewVolume>, Needs)> {
    let mut copies = Vec::new();
    let mut needs = Needs::default();
    for copy in &kept.disks {
        let of_order = |order: u32| present.and_then(|there| there.disks.iter().find(|disk| disk.order == order));
        let like = of_order(copy.order);
        let home = like.or_else(|| of_order(0)).map_or(kept.storlink.id, |disk| disk.storlink);
        let storlink = match present.and_then(|there| there.storlinks.get(&home)) {
            Some(storlink) => storlink.clone(),
            None => kept.storlink.clone(),
        };
        let driver = (core.volumes)(&storlink)?;
        // Where a storlink is gone, nothing could be undone either, so nothing is begun there.
        driver.usage()?;
        let formats = driver.info().formats;
        let format = like.map_or(FORMAT, |disk| disk.format);
        let format = if formats.contains(&format) { format } else { driver.info().default_format };
        let id = DiskId(core.ids.uuid());
        let layer = Layer { source: source.source(&copy.volume)?, format: copy.format };
        copies.push(NewVolume { format, size: copy.size, content: Content::Copy(vec![layer]) });
        needs.add(&storlink, MiB::from_bytes_ceil(manifest.image(copy)?.data_bytes) + TABLES);
        machine.disks.push(Disk {
            id,
            owner: DiskOwner::Vm(machine.vm.id),
            order: copy.order,
            size: copy.size,
            format,
            storlink: storlink.id,
            volume: VolumeName::new(id, format),
            desc: copy.desc.clone(),
            created_at: machine.vm.updated_at,
            backing: None,
        });
        machine.storlinks.insert(storlink.id, storlink);
    }
    Ok((copies, needs))
}
