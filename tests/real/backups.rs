//! A booted guest counts on its disks while it is backed up. The backup holds its numbers up to one moment, all of them; it
//! boots where nobody sees it; and the VM comes back from it, also when nothing else of it is left.

use std::path::Path;
use std::process::Command;

use pengx::model::{DiskId, Format};
use pengx::store::{backups, disks};

use super::{add_storlink, add_template, new_vm, press, status, task_uri, template_image, vm_body};
use crate::harness::counters::{Count, Counter, at_one_moment};
use crate::harness::guest::golden;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::tool::qemu_img;
use crate::harness::wait::{BOOT, wait_until, wait_within};

/// More than any guest here needs to boot.
const PATIENT: &str = "prove_timeout = 300";

struct Host {
    libvirtd: Libvirtd,
    place: Place,
}

impl Host {
    /// With a VM of two disks, which has been started and counts on them; its id.
    fn new(name: &str) -> (Self, Program, String) {
        let libvirtd = Libvirtd::start(name);
        let place = Place::new(&libvirtd.uri, PATIENT);
        std::fs::copy(golden(), template_image(&place, "qcow2")).unwrap();
        let server = place.serve();
        add_storlink(&server, &place);
        let template = add_template(&server, "qcow2");
        let made = server.post("/vms/", &vm_body("web1", &template, "", "64", "qcow2"));
        assert_eq!(made.status, 201, "{made:?}");
        let vm = new_vm(&server, &[]);
        pressed(&server, &vm, "start", "RUNNING");
        let host = Self { libvirtd, place };
        host.counts_past(&vm, 50);
        (host, server, vm)
    }

    fn counters(&self, images: impl IntoIterator<Item = DiskId>) -> Vec<Counter> {
        let path = |id| self.place.store_dir().join(format!("{id}.qcow2"));
        let counter = |(n, id): (usize, DiskId)| match n {
            0 => Counter::system(path(id), Format::Qcow2),
            _ => Counter::extra(path(id), Format::Qcow2),
        };
        images.into_iter().enumerate().map(counter).collect()
    }

    /// Of what the rows say that the VM writes to.
    fn of_vm(&self, vm: &str) -> Vec<Counter> {
        let all = self.place.store().read(|c| disks::of_vm(c, vm.parse().unwrap())).unwrap();
        self.counters(all.into_iter().map(|disk| disk.id))
    }

    fn of_backup(&self, backup: &str) -> Vec<Counter> {
        let all = self.place.store().read(|c| disks::of_backup(c, backup.parse().unwrap())).unwrap();
        self.counters(all.into_iter().map(|disk| disk.id))
    }

    /// The last numbers that the guest has written, when it has written this one.
    fn counts_past(&self, vm: &str, number: u64) -> u64 {
        let lasts = self.of_vm(vm).into_iter().map(|disk| disk.until_past(number));
        lasts.min().unwrap()
    }

    /// All that the VM, which is off, has on its disks: every number from the first on.
    fn count(&self, disks: &[Counter]) -> Vec<Count> {
        let counts = at_one_moment(disks).unwrap_or_else(|why| panic!("{why}"));
        assert!(counts.iter().all(|count| count.first == 1), "{counts:?}");
        counts
    }

    fn domains(&self) -> Vec<String> {
        let list = self.libvirtd.virsh(&["list", "--all", "--uuid"]);
        list.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

fn pressed(server: &Program, vm: &str, button: &str, then: &str) {
    let answer = press(server, vm, button);
    assert_eq!((answer.status, answer.element("result")), (200, "success"), "{button}: {answer:?}");
    assert_eq!(status(server, vm), then, "after {button}");
}

fn back_up(server: &Program, vm: &str) -> String {
    let before = server.get("/backups/").ids("vmbackup");
    let body = "<vm><backup_name>nightly</backup_name><storlink>1</storlink></vm>";
    let made = server.post(&format!("/vms/{vm}/backups/"), body);
    assert_eq!((made.status, made.message()), (200, "backup nightly of vm web1 is made"), "{made:?}");
    let mut new = server.get("/backups/").ids("vmbackup");
    new.retain(|id| !before.contains(id));
    new.remove(0)
}

fn done(server: &Program, uri: &str, status: u16) {
    let answer = server.post(uri, "");
    assert_eq!((answer.status, answer.element("result")), (status, "success"), "{uri}: {answer:?}");
}

fn lasts(counts: &[Count]) -> Vec<u64> {
    counts.iter().map(|count| count.last).collect()
}

#[test]
fn a_guest_that_writes_is_backed_up_and_comes_back_with_every_number() {
    let (host, server, vm) = Host::new("backups");
    let begun = host.counts_past(&vm, 100);
    let backup = back_up(&server, &vm);
    let uri = format!("/vms/{vm}/backups/{backup}/");
    let kept = host.count(&host.of_backup(&backup));
    assert!(lasts(&kept).iter().all(|last| *last >= begun), "{kept:?}: it had written {begun} before");
    for disk in host.of_backup(&backup) {
        assert_eq!(disk.read().unwrap().filled_in(), 0);
    }
    // The guest goes on where it was, on its own disks.
    host.counts_past(&vm, lasts(&kept)[0] + 50);
    assert_eq!(host.domains(), [vm.as_str()]);
    assert_eq!(host.place.files().len(), 1 + 2 + 3, "{:?}", host.place.files());
    done(&server, &format!("{uri}verify/"), 200);

    // Proven beside the guest that it is of, with the same addresses and none of its network.
    let files = host.place.files();
    done(&server, &format!("{uri}prove/"), 200);
    assert_eq!((host.domains(), host.place.files()), (vec![vm.clone()], files));
    assert_eq!(lasts(&host.count(&host.of_backup(&backup))), lasts(&kept), "the backup was only read");
    done(&server, &format!("{uri}verify/"), 200);

    pressed(&server, &vm, "poweroff", "SHUTDOWN");
    let end = host.count(&host.of_vm(&vm));
    assert!(end[0].filled_in() + end[1].filled_in() == 0 && end[0].last > kept[0].last, "{end:?}");
    for disk in host.place.store().read(|c| disks::of_vm(c, vm.parse().unwrap())).unwrap() {
        let image = host.place.store_dir().join(disk.volume.as_str());
        qemu_img(&["check", "-q", "-f", "qcow2", image.to_str().unwrap()]);
    }
    done(&server, &uri, 201);
    assert_eq!(lasts(&host.count(&host.of_vm(&vm))), lasts(&kept));
    pressed(&server, &vm, "start", "RUNNING");
    let second = host.counts_past(&vm, kept[0].last + 30);
    pressed(&server, &vm, "poweroff", "SHUTDOWN");
    assert!(host.count(&host.of_vm(&vm))[0].last >= second);

    // And when nothing is left of it but the backup.
    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    assert_eq!((host.domains(), host.place.files().len()), (Vec::new(), 1 + 3));
    done(&server, &uri, 201);
    assert_eq!(lasts(&host.count(&host.of_vm(&vm))), lasts(&kept));
    pressed(&server, &vm, "start", "RUNNING");
    host.counts_past(&vm, kept[0].last + 30);
    pressed(&server, &vm, "poweroff", "SHUTDOWN");
    host.count(&host.of_vm(&vm));
    assert_eq!(server.delete(&uri).status, 204);
    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    host.place.assert_at_rest();
    assert_eq!(host.place.files().len(), 1, "{:?}", host.place.files());
}

/// What is left when the program is killed while it copies, or while a guest is being proven: nothing.
#[test]
fn a_server_that_is_killed_leaves_neither_half_a_backup_nor_a_proof() {
    let (host, server, vm) = Host::new("killed-backups");
    let body = "<vm><backup_name>nightly</backup_name><storlink>1</storlink></vm>";
    let accepted = server.post_async(&format!("/vms/{vm}/backups/"), body);
    task_uri(&accepted);
    wait_until("it copies", || Ok(host.place.unfinished_bytes() > 0));
    server.kill();
    let last = host.counts_past(&vm, 100);
    let server = host.place.serve();
    host.place.assert_at_rest();
    assert_eq!(host.place.files().len(), 1 + 2, "{:?}", host.place.files());
    let last = host.counts_past(&vm, last + 50);
    let overlays = host.libvirtd.virsh(&["domblklist", &vm]);
    assert_eq!(overlays.matches("/store/").count(), 2, "{overlays}");

    let backup = back_up(&server, &vm);
    let files = host.place.files();
    let proof = server.post_async(&format!("/vms/{vm}/backups/{backup}/prove/"), "");
    task_uri(&proof);
    wait_within(BOOT, "the proof runs", || Ok(host.libvirtd.virsh(&["list", "--uuid"]).trim().lines().count() == 2));
    server.kill();
    assert_eq!(host.domains().len(), 2);
    let server = host.place.serve();
    host.place.assert_at_rest();
    wait_until("the proof is gone", || Ok(host.domains() == [vm.as_str()] && host.place.files() == files));
    host.counts_past(&vm, last + 50);
    pressed(&server, &vm, "poweroff", "SHUTDOWN");
    assert!(host.count(&host.of_vm(&vm)).iter().all(|count| count.filled_in() == 0));
    assert!(host.place.store().read(backups::all).unwrap()[0].proven_at.is_none());
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));

    // What the guest says on its console is as good a sign; what it never says is none.
    host.place.set("prove_wait = 'console:PENGX-GUEST-READY boots='");
    let server = host.place.serve();
    done(&server, &format!("/vms/{vm}/backups/{backup}/prove/"), 200);
    assert_eq!((host.domains(), host.place.files()), (vec![vm.clone()], files.clone()));
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let config = std::fs::read_to_string(host.place.data_dir().with_file_name("pengx.toml")).unwrap();
    let config =
        config.replace("console:PENGX-GUEST-READY boots=", "console:never said").replace(PATIENT, "prove_timeout = 2");
    std::fs::write(host.place.data_dir().with_file_name("pengx.toml"), config).unwrap();
    let server = host.place.serve();
    let refused = server.post(&format!("/vms/{vm}/backups/{backup}/prove/"), "");
    let says = "backup nightly of vm web1 was booted, and its console did not show \"never said\" in 2 s";
    assert_eq!(
        (refused.status, refused.message().replace("&quot;", "\"").replace("&#34;", "\"").as_str()),
        (400, says)
    );
    host.place.assert_at_rest();
    assert_eq!((host.domains(), host.place.files()), (vec![vm.clone()], files));
}

/// By hand, as docs/running.md says: the database is lost, and there are only the files of the backup.
#[test]
fn a_vm_is_made_again_from_the_files_alone() {
    let (host, server, vm) = Host::new("by-hand");
    let backup = back_up(&server, &vm);
    let kept = lasts(&host.count(&host.of_backup(&backup)));
    server.kill();
    host.libvirtd.virsh(&["destroy", &vm]);
    let store = host.place.store_dir();
    let manifest = std::fs::read(store.join(format!("{backup}.json"))).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let images = manifest["disks"].as_array().unwrap();
    assert!(images.iter().all(|said| is_what_it_was(&store.join(said["volume"].as_str().unwrap()), said)));

    // Another pengx makes a VM of this size, and while it is off its disks get the content of the images.
    let next = Host { place: Place::new(&host.libvirtd.uri, ""), ..host };
    let server = next.place.serve();
    add_storlink(&server, &next.place);
    let mib = |n: usize| (images[n]["virtual_bytes"].as_u64().unwrap() >> 20).to_string();
    let name = manifest["config"]["name"].as_str().unwrap();
    let made = server.post("/vms/", &vm_body(name, "", &mib(0), &mib(1), "qcow2"));
    assert_eq!(made.status, 201, "{made:?}");
    let vm = new_vm(&server, &[]);
    for (disk, said) in server.get(&format!("/vms/{vm}/disks/")).ids("disk").iter().zip(images) {
        let (from, to) = (store.join(said["volume"].as_str().unwrap()), format!("{disk}.qcow2"));
        let to = next.place.store_dir().join(to);
        qemu_img(&["convert", "-f", "qcow2", "-O", "qcow2", from.to_str().unwrap(), to.to_str().unwrap()]);
    }
    assert_eq!(lasts(&next.count(&next.of_vm(&vm))), kept);
    pressed(&server, &vm, "start", "RUNNING");
    next.counts_past(&vm, kept[0] + 30);
    pressed(&server, &vm, "poweroff", "SHUTDOWN");
    next.count(&next.of_vm(&vm));
    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    next.place.assert_at_rest();
}

/// As anybody's tools see it.
fn is_what_it_was(image: &Path, said: &serde_json::Value) -> bool {
    let block = 16 << 20;
    let script = format!(
        "n=0; while chunk=$(dd if=\"$0\" bs={block} skip=$n count=1 2>/dev/null | sha256sum | cut -d' ' -f1) && \
         [ $((n * {block})) -lt $(stat -c %s \"$0\") ]; do echo $chunk; n=$((n+1)); done"
    );
    let done = Command::new("sh").arg("-c").arg(script).arg(image).output().unwrap();
    let lines: Vec<serde_json::Value> =
        String::from_utf8(done.stdout).unwrap().lines().map(|line| line.into()).collect();
    said["sha256"].as_array().unwrap() == &lines
}
