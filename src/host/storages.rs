//! The storage under this host's mounts, its iSCSI sessions, and the OCFS2 cluster that it is in. Only what `/proc`, `/sys`
//! and `/etc` say: volume groups, physical volumes and DRBD resources need tools and are left out.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Host;
use crate::error::{Error, Result};
use crate::model::{MiB, Ocfs2Peer, Storage, StorageCategory, Usage};
use crate::patience::within;

/// How long a mount may take to say how full it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many devices may lie between a mapped device and its disk.
const DEPTH: usize = 4;

/// One line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// `8:17`
    device: String,
    point: String,
    file_system: String,
    source: String,
    /// Of the file system: `addr=10.0.0.5,vers=4.2`
    options: String,
}

/// A session with an iSCSI target.
struct Session {
    name: String,
    target: String,
    ip: Option<String>,
}

impl Host {
    /// Mounts by their order, each device once; then iSCSI sessions that nothing is mounted from. Asks no mount how full it is.
    pub fn storages(&self) -> Vec<Storage> {
        let sessions = self.sessions();
        let uuids = self.uuids();
        let mut used = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for line in self.text("proc/self/mountinfo").unwrap_or_default().lines() {
            let Some(mount) = mount(line).filter(|mount| seen.insert(mount.device.clone())) else { continue };
            if mount.file_system == "nfs" || mount.file_system == "nfs4" {
                found.extend(nfs(&mount));
            } else if mount.source.starts_with("/dev/") || mount.file_system == "ocfs2" {
                let place = self.place(&mount);
                let session = sessions.iter().find(|s| place.path.split('/').any(|part| part == s.name));
                used.extend(session.map(|s| s.name.clone()));
                found.push(on_a_device(mount, &place, session, &uuids));
            }
        }
        let idle = sessions.into_iter().filter(|session| !used.contains(&session.name));
        found.extend(idle.map(|session| Storage {
            category: StorageCategory::Iscsi,
            uuid: None,
            usage: None,
            mount_point: None,
            target_ip: session.ip,
            target: Some(session.target),
        }));
        found
    }

    /// Asks every mount how full it is, all at once; one that does not answer in time is left as it is.
    pub fn measure(&self, storages: &mut [Storage]) {
        std::thread::scope(|scope| {
            for storage in storages {
                let Some(point) = storage.mount_point.clone() else { continue };
                let ask = move || match self.usage(&point) {
                    Ok(usage) => storage.usage = Some(usage),
                    Err(why) => self.say(&format!("{point} does not say how full it is: {}", why.story())),
                };
                if let Err(why) = std::thread::Builder::new().name("measure".to_owned()).spawn_scoped(scope, ask) {
                    self.say(&format!("no thread to measure a mount: {why}"));
                }
            }
        });
    }

    fn usage(&self, point: &str) -> Result<Usage> {
        let path = self.root.join(point.trim_start_matches('/'));
        let asked = path.clone();
        within(PATIENCE, &path, move || {
            let said = rustix::fs::statvfs(&asked).map_err(|e| Error::refused("the storage", e.to_string()))?;
            let size = |blocks: u64| MiB::from_bytes_floor(blocks.saturating_mul(said.f_frsize));
            Ok(Usage { size: size(said.f_blocks), free: size(said.f_bavail) })
        })
    }

    fn sessions(&self) -> Vec<Session> {
        let connections = self.names("sys/class/iscsi_connection");
        let session = |name: String| {
            let target = self.line(&format!("sys/class/iscsi_session/{name}/targetname"))?;
            let number = name.strip_prefix("session")?;
            let ip = connections.iter().filter(|c| c.starts_with(&format!("connection{number}:"))).find_map(|c| {
                let of = |what: &str| self.line(&format!("sys/class/iscsi_connection/{c}/{what}"));
                // The first is where it was told to go, the second where a portal sent it.
                of("persistent_address").or_else(|| of("address"))
            });
            Some(Session { name, target, ip })
        };
        self.names("sys/class/iscsi_session").into_iter().filter_map(session).collect()
    }

    /// From the kernel's name of a device to the uuid of the file system on it.
    fn uuids(&self) -> HashMap<String, String> {
        let uuid = |uuid: String| Some((self.linked_name(&format!("dev/disk/by-uuid/{uuid}"))?, uuid));
        self.names("dev/disk/by-uuid").into_iter().filter_map(uuid).collect()
    }

    fn place(&self, mount: &Mount) -> Place {
        let name = mount.source.rsplit('/').next().unwrap_or_default();
        // File systems with several devices, btrfs for one, have a number of their own.
        let of_number = format!("sys/dev/block/{}", mount.device);
        let mut node = if self.has(&of_number) { of_number } else { format!("sys/class/block/{name}") };
        let mut path = self.link(&node).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let is_lv = self.line(&format!("{node}/dm/uuid")).is_some_and(|uuid| uuid.starts_with("LVM-"));
        for _ in 0..DEPTH {
            let Some(below) = self.names(&format!("{node}/slaves")).into_iter().next() else { break };
            node = format!("sys/class/block/{below}");
            path = self.link(&node).unwrap_or_default();
        }
        Place { name, path, is_lv }
    }
}

/// Where a mounted device is.
struct Place {
    /// The kernel's name of it.
    name: String,
    /// Of the disk below it among the devices: `../../devices/platform/host3/session1/target3:0:0/…`
    path: String,
    is_lv: bool,
}

fn on_a_device(mount: Mount, place: &Place, session: Option<&Session>, uuids: &HashMap<String, String>) -> Storage {
    let category = if mount.file_system == "ocfs2" {
        StorageCategory::Ocfs2
    } else if place.is_lv {
        StorageCategory::Lv
    } else if place.name.starts_with("drbd") {
        StorageCategory::Drbd
    } else if session.is_some() {
        StorageCategory::Iscsi
    } else if place.path.split('/').any(|part| part.starts_with("rport-")) {
        StorageCategory::Fc
    } else {
        StorageCategory::Local
    };
    Storage {
        category,
        uuid: uuids.get(&place.name).cloned(),
        usage: None,
        mount_point: Some(mount.point),
        target_ip: session.and_then(|s| s.ip.clone()),
        target: session.map(|s| s.target.clone()),
    }
}

/// `server:/path`; the server may be an IPv6 address in brackets.
fn nfs(mount: &Mount) -> Option<Storage> {
    let (server, path) = mount.source.split_once(":/")?;
    let server = server.trim_start_matches('[').trim_end_matches(']');
    let ip = mount.options.split(',').find_map(|option| option.strip_prefix("addr=")).unwrap_or(server);
    let path = format!("/{path}");
    let digest = Sha256::digest(format!("nfs {ip}:{path}"));
    let uuid = digest.first_chunk().map(|bytes| uuid::Builder::from_custom_bytes(*bytes).into_uuid().to_string());
    Some(Storage {
        category: StorageCategory::Nfs,
        uuid,
        usage: None,
        mount_point: Some(mount.point.clone()),
        target_ip: Some(ip.to_owned()),
        target: Some(path),
    })
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mount(line: &str) -> Option<Mount> {
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let (device, _, point) = (place.next()?, place.next()?, place.next()?);
    let mut what = what.split(' ');
    Some(Mount {
        device: device.to_owned(),
        point: unescaped(point),
        file_system: what.next()?.to_owned(),
        source: unescaped(what.next()?),
        options: what.next().unwrap_or_default().to_owned(),
    })
}

/// The kernel writes a blank as `\040`, and so a tab, a line break and a backslash.
fn unescaped(text: &str) -> String {
    let mut out = text.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, plain);
    }
    out
}

impl Host {
    /// The other nodes of the cluster in `/etc/ocfs2/cluster.conf`; `me` is this one's name.
    pub fn ocfs2(&self, me: &str) -> Vec<Ocfs2Peer> {
        let text = self.text("etc/ocfs2/cluster.conf").unwrap_or_default();
        let mut peers = Vec::new();
        let mut stanza: HashMap<&str, &str> = HashMap::new();
        // A name and a colon at the margin begin a stanza; one more ends the last.
        for line in text.lines().chain(["end:"]) {
            if !line.starts_with([' ', '\t']) && line.trim_end().ends_with(':') {
                peers.extend(peer(&stanza));
                stanza = HashMap::from([("stanza", line.trim_end())]);
            } else if let Some((key, value)) = line.split_once('=') {
                stanza.insert(key.trim(), value.trim());
            }
        }
        peers.retain(|peer| peer.name != me);
        peers
    }
}

fn peer(stanza: &HashMap<&str, &str>) -> Option<Ocfs2Peer> {
    if stanza.get("stanza") != Some(&"node:") {
        return None;
    }
    let number = stanza.get("number")?.parse().ok()?;
    Some(Ocfs2Peer { ip: (*stanza.get("ip_address")?).to_owned(), name: (*stanza.get("name")?).to_owned(), number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::Tree;

    fn storage(category: StorageCategory, point: &str) -> Storage {
        let mount_point = Some(point.to_owned());
        Storage { category, uuid: None, usage: None, mount_point, target_ip: None, target: None }
    }

    #[test]
    fn mounts_are_told_apart_by_what_is_below_them() {
        let tree = Tree::of(&[
            (
                "proc/self/mountinfo",
                r"22 27 0:21 / /proc rw - proc proc rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
28 27 8:1 /srv /bound rw - ext4 /dev/sda1 rw
30 27 8:16 / /iscsi rw - xfs /dev/sdb rw
31 27 8:33 / /fc\040disk rw - xfs /dev/sdc1 rw
32 27 253:0 / /lv rw - xfs /dev/mapper/vg0-lv0 rw
33 27 253:1 / /multi rw - xfs /dev/mapper/mpatha rw
34 27 8:64 / /cluster rw - ocfs2 /dev/sde rw
35 27 147:0 / /mirror rw - ext4 /dev/drbd0 rw
36 27 0:50 / /btrfs rw - btrfs /dev/sdf rw
37 27 0:60 / /tmp rw - tmpfs tmpfs rw
",
            ),
            ("sys/dev/block/8:1", "-> ../../devices/pci0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1"),
            ("sys/devices/pci0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1/dev", "8:1"),
            ("sys/dev/block/8:16", "-> ../../devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb"),
            ("sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb/dev", "8:16"),
            ("sys/dev/block/8:33", "-> ../../devices/pci0/host4/rport-4:0-1/target4:0:0/4:0:0:1/block/sdc/sdc1"),
            ("sys/devices/pci0/host4/rport-4:0-1/target4:0:0/4:0:0:1/block/sdc/sdc1/dev", "8:33"),
            ("sys/dev/block/253:0", "-> ../../devices/virtual/block/dm-0"),
            ("sys/devices/virtual/block/dm-0/dm/uuid", "LVM-abc\n"),
            ("sys/devices/virtual/block/dm-0/slaves/sdd", ""),
            ("sys/dev/block/253:1", "-> ../../devices/virtual/block/dm-1"),
            ("sys/devices/virtual/block/dm-1/dm/uuid", "mpath-3600\n"),
            ("sys/devices/virtual/block/dm-1/slaves/sdg", ""),
            ("sys/class/block/sdg", "-> ../../devices/platform/host5/session2/target5:0:0/5:0:0:1/block/sdg"),
            ("sys/dev/block/147:0", "-> ../../devices/virtual/block/drbd0"),
            ("sys/devices/virtual/block/drbd0/dev", "147:0"),
            ("sys/class/block/sdf", "-> ../../devices/pci0/ata1/block/sdf"),
            ("sys/class/iscsi_session/session1/targetname", "iqn.2017-07.kr:disk1\n"),
            ("sys/class/iscsi_session/session2/targetname", "iqn.2017-07.kr:disk2\n"),
            ("sys/class/iscsi_session/session11/targetname", "iqn.2017-07.kr:idle\n"),
            ("sys/class/iscsi_connection/connection1:0/persistent_address", "10.0.0.5\n"),
            ("sys/class/iscsi_connection/connection1:0/address", "10.0.0.6\n"),
            ("sys/class/iscsi_connection/connection11:0/address", "10.0.0.7\n"),
            ("dev/disk/by-uuid/1111-aaaa", "-> ../../sda1"),
            ("dev/disk/by-uuid/2222-bbbb", "-> ../../dm-0"),
        ]);
        let text = |text: &str| Some(text.to_owned());
        let disk = |point, n: u8, ip: Option<&str>| Storage {
            target: Some(format!("iqn.2017-07.kr:disk{n}")),
            target_ip: ip.map(str::to_owned),
            ..storage(StorageCategory::Iscsi, point)
        };
        let expected = [
            Storage { uuid: text("1111-aaaa"), ..storage(StorageCategory::Local, "/") },
            disk("/iscsi", 1, Some("10.0.0.5")),
            storage(StorageCategory::Fc, "/fc disk"),
            Storage { uuid: text("2222-bbbb"), ..storage(StorageCategory::Lv, "/lv") },
            disk("/multi", 2, None),
            storage(StorageCategory::Ocfs2, "/cluster"),
            storage(StorageCategory::Drbd, "/mirror"),
            storage(StorageCategory::Local, "/btrfs"),
            Storage {
                mount_point: None,
                target: text("iqn.2017-07.kr:idle"),
                target_ip: text("10.0.0.7"),
                ..storage(StorageCategory::Iscsi, "")
            },
        ];
        assert_eq!(tree.host().storages(), expected);
        assert_eq!(Tree::of(&[]).host().storages(), []);
    }

    #[test]
    fn an_nfs_export_has_the_same_uuid_on_every_host() {
        let on = |point: &str, source: &str| {
            let line = format!(
                "40 27 0:44 / {point} rw shared:2 - nfs4 {source} rw,vers=4.2,clientaddr=10.0.0.9,addr=10.0.0.5\n"
            );
            Tree::of(&[("proc/self/mountinfo", &line)]).host().storages().remove(0)
        };
        let (here, there) = (on("/nfs", "filer:/export/vms"), on("/mnt/x", "filer.lan:/export/vms"));
        assert_eq!(here.category, StorageCategory::Nfs);
        assert_eq!((here.target_ip.as_deref(), here.target.as_deref()), (Some("10.0.0.5"), Some("/export/vms")));
        assert!(here.uuid.is_some() && here.uuid == there.uuid, "{here:?} {there:?}");
        assert_ne!(here.uuid, on("/nfs", "filer:/export/other").uuid);
        let plain = mount("1 2 0:5 / /x rw - nfs [fd00::5]:/ rw,vers=3").and_then(|m| nfs(&m)).unwrap();
        assert_eq!((plain.target_ip.as_deref(), plain.target.as_deref()), (Some("fd00::5"), Some("/")));
        assert_eq!(mount("1 2 0:5 / /x rw - nfs nonsense rw").and_then(|m| nfs(&m)), None);
    }

    #[test]
    fn a_mount_says_how_full_it_is_and_one_that_cannot_changes_nothing() {
        let tree = Tree::of(&[("srv/file", "")]);
        let old = Some(Usage { size: MiB(7), free: MiB(3) });
        let mut storages = [
            storage(StorageCategory::Local, "/srv"),
            Storage { usage: old, ..storage(StorageCategory::Nfs, "/gone") },
            Storage { mount_point: None, ..storage(StorageCategory::Iscsi, "") },
        ];
        tree.host().measure(&mut storages);
        let [here, gone, none] = &storages;
        assert!(here.usage.is_some_and(|usage| usage.size > MiB(0) && usage.free <= usage.size), "{here:?}");
        assert_eq!((gone.usage, none.usage), (old, None));
    }

    #[test]
    fn the_peers_of_an_ocfs2_cluster_are_its_other_nodes() {
        let conf = "cluster:\n\tnode_count = 2\n\tname = ocfs2\n\nnode:\n\tip_port = 7777\n\tip_address = 10.0.0.1\n\
                    \tnumber = 0\n\tname = node1\n\tcluster = ocfs2\nnode:\n    ip_address=10.0.0.2\n    number=1\n    name=node2\n\
                    node:\n\tname = broken\n";
        let tree = Tree::of(&[("etc/ocfs2/cluster.conf", conf)]);
        let peer = |n: u32| Ocfs2Peer { ip: format!("10.0.0.{n}"), name: format!("node{n}"), number: n - 1 };
        assert_eq!(tree.host().ocfs2("node1"), [peer(2)]);
        assert_eq!(tree.host().ocfs2("other"), [peer(1), peer(2)]);
        assert_eq!(Tree::of(&[]).host().ocfs2("node1"), []);
    }
}
