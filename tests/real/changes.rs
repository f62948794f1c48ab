//! A guest that is changed while it runs, through HTTP: what the answers say, what libvirt has, and what the guest sees.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pengx::model::Format;

use super::{add_storlink, add_template, disc, new_vm, press, status, template_image, vm_body};
use crate::harness::guest::{EXTRA, SYSTEM, Sight, beat, golden, next_beat, until_booted, until_seen};
use crate::harness::http::Answer;
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::wait::wait_until;

/// A live guest beats about twice a second.
const SILENCE: Duration = Duration::from_secs(3);

struct Guest {
    libvirtd: Libvirtd,
    place: Place,
    server: Program,
    id: String,
    image: PathBuf,
}

impl Guest {
    fn new() -> Self {
        let libvirtd = Libvirtd::start("changes");
        let place = Place::new(&libvirtd.uri, "shutdown_timeout = 110");
        std::fs::copy(golden(), template_image(&place, "qcow2")).unwrap();
        let server = place.serve();
        add_storlink(&server, &place);
        let template = add_template(&server, "qcow2");
        let before = place.files();
        let made = server.post("/vms/", &vm_body("web1", &template, "", "", "qcow2"));
        assert_eq!(made.status, 201, "{made:?}");
        let new: Vec<String> = place.files().difference(&before).cloned().collect();
        let [image] = &new[..] else { panic!("{new:?}") };
        let image = place.store_dir().join(image);
        let id = new_vm(&server, &[]);
        Self { libvirtd, place, server, id, image }
    }

    fn uri(&self, rest: &str) -> String {
        format!("/vms/{}/{rest}", self.id)
    }

    fn press(&self, button: &str, then: &str) {
        let answer = press(&self.server, &self.id, button);
        assert_eq!((answer.status, answer.element("result")), (200, "success"), "{button}: {answer:?}");
        assert_eq!(status(&self.server, &self.id), then, "after {button}");
    }

    fn document(&self) -> Answer {
        self.server.get(&self.uri(""))
    }

    fn update(&self, changes: &str) {
        let answer = self.server.put(&self.uri("update/"), &format!("<vm>{changes}</vm>"));
        assert_eq!(answer.status, 204, "{changes}: {answer:?}");
    }

    fn refused(answer: &Answer, says: &str) {
        assert_eq!((answer.status, answer.element("result")), (400, "failure"), "{answer:?}");
        assert!(answer.message().contains(says), "{answer:?}");
    }

    fn sees(&self, what: &str, is: impl Fn(&Sight) -> bool) -> Sight {
        until_seen(&self.image, Format::Qcow2, what, is)
    }

    fn sees_disks(&self, disks: &str) {
        self.sees(disks, |sight| sight.disks.join(",") == disks);
    }

    /// The first line of what libvirt says, of the running domain or, with `--inactive` or the like, of its definition.
    fn virsh(&self, command: &str, options: &[&str]) -> String {
        self.libvirtd.virsh(&[&[command, self.id.as_str()], options].concat()).trim().to_owned()
    }

    fn plugged(&self, options: &[&str]) -> usize {
        self.virsh("domiflist", options).lines().count()
    }
}

#[test]
fn a_running_guest_is_changed_through_the_manuals_xml() {
    let guest = Guest::new();
    // Off, everything can be changed.
    guest.update("<memory>160</memory><maxmem>192</maxmem>");
    guest.press("start", "RUNNING");
    let first = guest.sees("itself", |_| true);
    assert_eq!((first.cpus, first.disks.join(",").as_str(), first.nics, first.disc), (1, "vda", 2, None));
    disks(&guest);
    sleeps(&guest);
    edit(&guest);
    memory(&guest);
    discs(&guest);
    vcpus(&guest);
    interfaces(&guest);
    assert_eq!(next_beat(&guest.image, Format::Qcow2, SYSTEM).boots, 1, "it was one life");
    boots(&guest);
    assert_page(&guest, "RUNNING");
    guest.press("poweroff", "SHUTDOWN");
    assert_page(&guest, "SHUTDOWN");
    guest.update("<cpu_core>1</cpu_core>");
    assert_eq!(guest.virsh("vcpucount", &["--current", "--config"]), "1", "off, it gives vCPUs back");
    assert_eq!(guest.server.delete(&guest.uri("")).status, 204);
    guest.place.assert_at_rest();
    assert_eq!(guest.libvirtd.virsh(&["list", "--all", "--uuid"]).trim(), "");
}

fn sleeps(guest: &Guest) {
    let memory = guest.sees("its memory", |_| true).memory;
    guest.press("suspend", "PAUSED");
    assert_eq!(guest.virsh("domstate", &[]), "paused");
    let now = || beat(&guest.image, Format::Qcow2, SYSTEM);
    let (before, until) = (now(), Instant::now() + SILENCE);
    assert!(before.is_some());
    while Instant::now() < until {
        assert_eq!(now(), before, "its heart stands still");
    }
    for (button, says) in
        [("suspend", "it is suspended already"), ("shutdown", "resume it first"), ("start", "started already")]
    {
        Guest::refused(&press(&guest.server, &guest.id, button), says);
    }
    // What it is given meanwhile, it finds when it wakes up; what it has to give up, it cannot.
    disc::labelled(&guest.place.store_dir().join("night.iso"), "NIGHT");
    guest.update("<memory>128</memory><iso>1/night.iso</iso>");
    let made = guest.server.post(&guest.uri("disks/"), "<disk><size>4</size><storlink>1</storlink></disk>");
    assert_eq!(made.status, 201, "{made:?}");
    let disk = guest.uri(&format!("disks/{}/", made.ids("disk")[0]));
    Guest::refused(&guest.server.delete(&disk), "resume it first");
    guest.press("resume", "RUNNING");
    assert_eq!(next_beat(&guest.image, Format::Qcow2, SYSTEM).boots, 1);
    let morning = |sight: &Sight| sight.disc.as_deref() == Some("NIGHT") && sight.memory + (24 << 10) < memory;
    guest.sees("what came over night", |sight| morning(sight) && sight.disks == ["vda", "vdb"]);
    assert_eq!(guest.server.delete(&disk).status, 204);
    guest.sees_disks("vda");
    guest.update("<memory>160</memory><iso></iso>");
    guest.sees("its own memory", |sight| sight.memory + (8 << 10) > memory && sight.disc.is_none());
    Guest::refused(&press(&guest.server, &guest.id, "resume"), "only a suspended vm can be resumed");
}

fn edit(guest: &Guest) {
    let name = "가상머신 🐧 & <1>";
    let edited =
        guest.server.put(&guest.uri("edit/"), "<vm><name>가상머신 🐧 &amp; &lt;1&gt;</name><desc>그림 🐧</desc></vm>");
    assert_eq!(edited.status, 204, "{edited:?}");
    assert_eq!(guest.document().element("name"), "가상머신 🐧 &amp; &lt;1&gt;");
    assert_eq!(guest.virsh("desc", &["--title", "--config"]), name);
    assert_eq!(guest.virsh("domstate", &[]), "running");
}

fn memory(guest: &Guest) {
    let most = guest.sees("its memory", |_| true).memory;
    guest.update("<memory>128</memory>");
    let little = guest.sees("less memory", |sight| sight.memory + (24 << 10) < most).memory;
    guest.update("<memory>192</memory>");
    guest.sees("all of its memory", |sight| sight.memory >= little + (60 << 10));
    // Beyond what it was started with: stored for its next start.
    guest.update("<maxmem>256</maxmem><memory>224</memory>");
    let document = guest.document();
    assert_eq!((document.element("memory"), document.element("maxmem")), ("224", "256"));
    let domain = guest.virsh("dumpxml", &[]);
    assert!(domain.contains("<memory unit='KiB'>196608</memory>"), "{domain}");
    let definition = guest.virsh("dumpxml", &["--inactive"]);
    assert!(definition.contains("<memory unit='KiB'>262144</memory>"), "{definition}");
    let answer = guest.server.put(&guest.uri("update/"), "<vm><memory>257</memory></vm>");
    Guest::refused(&answer, "memory: must be at most maxmem, 256");
}

fn discs(guest: &Guest) {
    for (file, label) in [("tools.iso", "PENGX TOOLS"), ("둘.iso", "SECOND")] {
        disc::labelled(&guest.place.store_dir().join(file), label);
        guest.update(&format!("<iso>1/{file}</iso>"));
        guest.sees(label, |sight| sight.disc == Some(label.replace(' ', "_")));
    }
    let absent = guest.server.put(&guest.uri("update/"), "<vm><iso>1/absent.iso</iso></vm>");
    assert!([400, 404].contains(&absent.status), "{absent:?}");
    guest.sees("the disc that was there", |sight| sight.disc.as_deref() == Some("SECOND"));
    guest.update("<iso/>");
    guest.sees("an empty drive", |sight| sight.disc.is_none());
}

fn vcpus(guest: &Guest) {
    guest.update("<cpu_core>2</cpu_core>");
    guest.sees("two CPUs", |sight| sight.cpus == 2);
    assert_eq!(guest.document().element("cpu_core"), "2");
    let counts = |guest: &Guest| {
        [&["--live"][..], &["--config"]].map(|of| guest.virsh("vcpucount", &[&["--current"], of].concat()))
    };
    assert_eq!(counts(guest), ["2", "2"]);
    let fewer = guest.server.put(&guest.uri("update/"), "<vm><cpu_core>1</cpu_core><memory>200</memory></vm>");
    Guest::refused(&fewer, "cpu_core: vm 가상머신 🐧");
    assert_eq!(counts(guest), ["2", "2"]);
    let document = guest.document();
    assert_eq!((document.element("cpu_core"), document.element("memory")), ("2", "224"), "nothing happened");
}

fn disks(guest: &Guest) {
    let before = guest.place.files();
    let made =
        guest.server.post(&guest.uri("disks/"), "<disk><size>8</size><storlink>1</storlink><desc>data</desc></disk>");
    assert_eq!((made.status, made.element("size")), (201, "8"), "{made:?}");
    let disk = made.ids("disk").remove(0);
    guest.sees_disks("vda,vdb");
    let list = guest.server.get(&guest.uri("disks/"));
    assert_eq!(
        (list.ids("disk").len(), &list.ids("disk")[1], list.body.matches("<order>1</order>").count()),
        (2, &disk, 1)
    );
    let new: Vec<String> = guest.place.files().difference(&before).cloned().collect();
    let [volume] = &new[..] else { panic!("{new:?}") };
    let volume = guest.place.store_dir().join(volume);
    next_beat(&volume, Format::Qcow2, EXTRA);

    let boot = guest.server.delete(&guest.uri(&format!("disks/{}/", list.ids("disk")[0])));
    Guest::refused(&boot, "boots from");
    let gone = guest.server.delete(&guest.uri(&format!("disks/{disk}/")));
    assert_eq!(gone.status, 204, "{gone:?}");
    guest.sees_disks("vda");
    assert_eq!(guest.place.files(), before);
    assert_eq!(guest.server.get(&guest.uri("disks/")).ids("disk").len(), 1);
    for of in [&[][..], &["--inactive"]] {
        assert!(!guest.virsh("domblklist", of).contains("vdb"));
    }
}

fn interfaces(guest: &Guest) {
    let made = guest.server.post(&guest.uri("interfaces/"), "<vms><interface_name>0</interface_name></vms>");
    assert_eq!((made.status, made.element("result")), (201, "success"), "{made:?}");
    guest.sees("another interface", |sight| sight.nics == 3);
    let nics = guest.server.get(&guest.uri("interfaces/")).ids("interface");
    assert_eq!((nics.len(), guest.plugged(&[]), guest.plugged(&["--inactive"])), (3, 3, 3));
    // One that it was started with goes from the rows and the definition, and is not pulled out.
    let gone = guest.server.delete(&guest.uri(&format!("interface/{}/", nics[0])));
    assert_eq!(gone.status, 204, "{gone:?}");
    assert_eq!(guest.server.get(&guest.uri("interfaces/")).ids("interface"), nics[1..]);
    assert_eq!((guest.plugged(&[]), guest.plugged(&["--inactive"])), (3, 2));
    next_beat(&guest.image, Format::Qcow2, SYSTEM);
    guest.sees("what it had", |sight| sight.nics == 3);
}

/// Each start is as the rows say.
fn boots(guest: &Guest) {
    guest.press("shutdown", "SHUTDOWN");
    guest.press("start", "RUNNING");
    until_booted(&guest.image, Format::Qcow2, 2);
    let sight = guest.sees("itself", |sight| sight.memory > 128 << 10);
    assert_eq!((sight.cpus, sight.disks.join(",").as_str(), sight.nics, sight.disc), (2, "vda", 2, None));
    assert!(guest.virsh("dumpxml", &[]).contains("<memory unit='KiB'>262144</memory>"));

    guest.press("reset", "RUNNING");
    until_booted(&guest.image, Format::Qcow2, 3);

    guest.press("reboot", "RUNNING");
    until_booted(&guest.image, Format::Qcow2, 4);
    assert_eq!(status(&guest.server, &guest.id), "RUNNING");
}

/// What monitoring reads of a server with one VM, in this state.
fn assert_page(guest: &Guest, state: &str) {
    wait_until("the VM is counted", || {
        let page = guest.server.get("/metrics");
        assert_eq!(page.status, 200, "{page:?}");
        let has = |line: String| page.body.lines().any(|is| is == line);
        let other = if state == "RUNNING" { "SHUTDOWN" } else { "RUNNING" };
        Ok(has(format!("pengx_vms{{state=\"{state}\"}} 1")) && has(format!("pengx_vms{{state=\"{other}\"}} 0")))
    });
    let page = guest.server.get("/metrics").body;
    for line in [
        "pengx_hypervisor_up 1",
        "pengx_database_up 1",
        "pengx_tasks_unclean 0",
        "pengx_tasks{state=\"running\"} 0",
        "pengx_storlink_up{id=\"1\",name=\"store1\"} 1",
        "pengx_tasks_ended_total{kind=\"disk.delete\",outcome=\"success\"} 2",
        "pengx_tasks_ended_total{kind=\"vm.suspend\",outcome=\"success\"} 1",
        "pengx_tasks_ended_total{kind=\"vm.suspend\",outcome=\"failure\"} 1",
        "pengx_tasks_ended_total{kind=\"vm.reset\",outcome=\"success\"} 1",
    ] {
        assert!(page.lines().any(|is| is == line), "no {line} in\n{page}");
    }
    let health = guest.server.get("/health");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
}
