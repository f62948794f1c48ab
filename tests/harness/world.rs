//! Everything that a failed operation must leave as it was: files, domains, rows, locks.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use chrono::NaiveDateTime;
use pengx::model::{Seen, Storlink, Template, Usage, Vm};
use pengx::store::{
    backups, deletions, disks, journal, locks, nics, numbers, snapshots, storlinks, templates, tenants, vms,
};

use super::app::App;

/// Two worlds that are equal show no trace of what happened between them. Task records are history, not world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Name and a hash of the content.
    pub files: BTreeMap<String, u64>,
    /// The marks of storlinks on their directory.
    pub marks: Vec<String>,
    pub domains: Vec<String>,
    /// What the running ones have now, in whatever order it was plugged in.
    pub running: Vec<String>,
    pub rows: Vec<String>,
    pub authorized_keys: Option<Vec<u8>>,
    pub locks: Vec<String>,
    pub journal: Vec<String>,
}

impl World {
    pub fn of(app: &App) -> Self {
        let mut files = files(&app.site.store_dir());
        let second = app.site.second_dir();
        if second.is_dir() {
            files.extend(self::files(&second).into_iter().map(|(name, hash)| (format!("store2/{name}"), hash)));
        }
        let mut domains: Vec<String> =
            app.site.hypervisor.domains().unwrap().iter().map(|d| format!("{} {}", d.id, d.state)).collect();
        domains.sort();
        domains.extend(app.site.fake.definitions().iter().map(|d| format!("{d:?}")));
        let running = app.site.fake.states().into_iter().filter_map(|(id, _)| app.site.fake.running(id));
        let running = running.map(|mut has| {
            has.disks.sort_by_key(|disk| disk.order);
            has.nics.sort_by_key(|nic| nic.mac);
            format!("{has:?}")
        });
        let running = running.collect();
        let (rows, locks, journal) = app
            .store()
            .read(|c| {
                let mut rows = Vec::new();
                for storlink in storlinks::all(c)? {
                    // How full it is, others decide.
                    rows.push(format!("{:?}", Storlink { usage: Usage::default(), ..storlink }));
                }
                for template in templates::all(c)? {
                    rows.extend(disks::of_template(c, template.id)?.iter().map(|d| format!("{d:?}")));
                    let password = template.vnc_password.as_ref().map(|secret| secret.reveal().to_owned());
                    // What was seen last is noted some time after it was.
                    rows.push(format!("{:?} {password:?}", Template { seen: Seen::default(), ..template }));
                }
                for listing in vms::listing(c)? {
                    rows.extend(disks::of_vm(c, listing.vm.id)?.iter().map(|d| format!("{d:?}")));
                    rows.extend(nics::of_vm(c, listing.vm.id)?.iter().map(|n| format!("{n:?}")));
                    for snapshot in snapshots::of_vm(c, listing.vm.id)? {
                        rows.extend(disks::of_snapshot(c, snapshot.id)?.iter().map(|d| format!("{d:?}")));
                        rows.push(format!("{snapshot:?}"));
                    }
                    let vm = Vm { seen: Seen::default(), ..listing.vm };
                    rows.push(format!("{vm:?} {}", vm.vnc_password.reveal()));
                }
                for backup in backups::all(c)? {
                    rows.extend(disks::of_backup(c, backup.id)?.iter().map(|d| format!("{d:?}")));
                    rows.push(format!("{backup:?}"));
                }
                rows.extend(numbers::all(c)?.iter().map(|row| format!("{row:?}")));
                // Those that a task has: they end with it.
                rows.extend(numbers::promises(c, NaiveDateTime::MAX)?.iter().map(|row| format!("{row:?}")));
                rows.extend(tenants::tenancies(c)?.iter().map(|row| format!("{row:?}")));
                rows.extend(deletions::all(c)?.iter().map(|row| format!("{:?} {:?}", row.vm, row.id)));
                let locks = locks::all(c)?.iter().map(|l| format!("{l:?}")).collect();
                let journal = journal::all(c)?.iter().map(|e| format!("{e:?}")).collect();
                Ok((rows, locks, journal))
            })
            .unwrap();
        let authorized_keys = std::fs::read(app.site.settings.authorized_keys.as_ref().unwrap()).ok();
        let marks = marks(&app.site.store_dir());
        Self { files, marks, domains, running, rows, authorized_keys, locks, journal }
    }
    /// vCPUs that were plugged in stay, and row and definition say so; all else is as it was.
    pub fn with_plugged_vcpus(&self) -> Self {
        let swap = |lines: &[String], from, to| lines.iter().map(|line| line.replace(from, to)).collect();
        let plugged = |lines: &[String]| swap(lines, "vcpus: 1,", "vcpus: 2,");
        let (domains, running) = (plugged(&self.domains), plugged(&self.running));
        Self { rows: swap(&self.rows, "cpu: 1,", "cpu: 2,"), domains, running, ..self.clone() }
    }

    /// When it was booted is not compared.
    pub fn without_boot_times(&self) -> Self {
        let cut = |line: &String| match (line.find("recent_booted_at"), line.find(", updated_at")) {
            (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to..]),
            _ => line.clone(),
        };
        Self { rows: self.rows.iter().map(cut).collect(), ..self.clone() }
    }
}

fn files(dir: &Path) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let mut hash = DefaultHasher::new();
        if entry.file_type().unwrap().is_file() {
            std::fs::read(entry.path()).unwrap().hash(&mut hash);
        } else {
            // A pipe would be waited for, and a link leads elsewhere.
            format!("{:?}", (entry.file_type(), std::fs::read_link(entry.path()).ok())).hash(&mut hash);
        }
        files.insert(entry.file_name().into_string().unwrap(), hash.finish());
    }
    files
}

/// The marks of storlinks that a directory carries as attributes.
pub fn marks(dir: &std::path::Path) -> Vec<String> {
    let mut names = vec![0; 64 << 10];
    // Of a directory that is away, none.
    let Ok(length) = rustix::fs::listxattr(dir, &mut names[..]) else { return Vec::new() };
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    let mut marks: Vec<String> =
        names.split('\0').filter_map(|name| name.strip_prefix("user.pengx.storlink.")).map(str::to_owned).collect();
    marks.sort();
    marks
}
