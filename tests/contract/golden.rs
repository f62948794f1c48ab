//! Whole answers to the letter, on a site whose ids count and whose clock stands.
//!
//! `PENGX_BLESS=1` writes the files anew; they are never edited. Status and headers stand here, and the manual's own
//! template measures every body before it is compared or blessed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use pengx::hypervisor::Verb;
use pengx::model::*;
use pengx::store::{Conn, backups, disks, snapshots};

use super::manual::{Values, measure};
use super::{Api, file, vm};
use crate::harness::app::{Site, make_image};
use crate::harness::http::Answer;
use crate::harness::wait::PATIENCE;

const IMAGE: &str = "bed05d84-7c44-4720-9588-57cbd8ecef8c";

struct Gold {
    api: Api,
    seen: BTreeSet<String>,
    bless: bool,
}

impl Gold {
    fn new() -> Self {
        let bless = std::env::var("PENGX_BLESS").is_ok_and(|v| v == "1");
        Self { api: Api::on(Site::new().fixed()), seen: BTreeSet::new(), bless }
    }

    fn dir() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pengx")
    }

    /// Compares an answer with its file; what the manual's template has in its holes.
    #[track_caller]
    fn check(&mut self, name: &str, template: Option<&str>, status: u16, answer: &Answer) -> Values {
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/xml; charset=utf-8"), "{name}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()), "{name}");
        let values = template.map(|template| measure(template, &answer.body).unwrap_or_else(|e| panic!("{name}: {e}")));
        assert!(self.seen.insert(name.to_owned()), "{name} is used twice");
        let body = self.normal(&answer.body);
        let path = Self::dir().join(format!("{name}.xml"));
        if self.bless {
            std::fs::write(&path, &body).unwrap();
        }
        assert_eq!(body, file(&format!("golden/pengx/{name}.xml")), "{name}: the golden file is on the right");
        values.unwrap_or_default()
    }

    /// What differs from machine to machine and from run to run: the directory of the site, how full its file system is,
    /// and the host's interfaces.
    fn normal(&self, body: &str) -> String {
        let mut text = body.replace(self.api.app.site.store_dir().to_str().unwrap(), "/data1");
        if text.starts_with("<storlinks>") {
            text = blank(&text, "<size>", "</size>", "SIZE");
            text = blank(&text, "<free>", "</free>", "FREE");
        }
        if text.starts_with("<volumes>") {
            for name in ["allocated", "changed", "deletable"] {
                let (empty, set_aside) = (format!("<{name}></{name}>"), format!("<{name}/>"));
                text = text.replace(&empty, &set_aside);
                text = blank(&text, &format!("<{name}>"), &format!("</{name}>"), "COUNT").replace(&set_aside, &empty);
            }
        }
        if text.starts_with("<console>") {
            let ticket = answer_element(&text, "ticket");
            text = text.replace(&ticket, "TICKET").replace(&self.api.http.address.to_string(), "localhost:8000");
        }
        if text.starts_with("<pm ") {
            text = blank(&text, "<interfaces>", "\n  </interfaces>", "\n    INTERFACES");
        }
        if text.starts_with("<pms>") {
            text = blank(&text, "<interfaces>", "\n    </interfaces>", "\n      INTERFACES");
        }
        if text.starts_with("<pmpperf ") {
            let counts = ["smt", "total_memory", "used_memory", "memory_util", "iface_rx_sum", "iface_tx_sum"];
            for name in counts {
                text = blank(&text, &format!("<{name}>"), &format!("</{name}>"), "COUNT");
            }
            text = blank(&text, "<cpu_util>", " </cpu_util>", "COUNT");
        }
        text
    }

    /// Every file was compared with something.
    fn finish(self) {
        let mut files = BTreeSet::new();
        for entry in std::fs::read_dir(Self::dir()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            files.insert(name.strip_suffix(".xml").expect(&name).to_owned());
        }
        assert_eq!(files, self.seen);
        self.api.app.assert_at_rest();
    }
}

fn answer_element(text: &str, name: &str) -> String {
    text.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap().to_owned()
}

/// Each text between `from` and `to` becomes `word`.
fn blank(text: &str, from: &str, to: &str, word: &str) -> String {
    let mut parts = text.split(from);
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let (_, rest) = part.split_once(to).unwrap();
        out.push_str(&format!("{from}{word}{to}{rest}"));
    }
    out
}

/// Names of physical NICs, bridges and bonds, as the kernel lists them.
fn host_interfaces() -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("/sys/class/net").unwrap() {
        let entry = entry.unwrap();
        if ["device", "bridge", "bonding"].iter().any(|kind| entry.path().join(kind).exists()) {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.sort();
    names
}

#[test]
fn answers_are_the_manuals_to_the_letter() {
    let mut gold = Gold::new();
    empty_site(&mut gold);
    storlink_and_template(&mut gold);
    let id = vms(&mut gold);
    volumes(&mut gold);
    power(&mut gold, &id);
    template(&mut gold);
    failures(&mut gold);
    devices(&mut gold, &id);
    snapshots(&mut gold, &id);
    let backup = backup(&mut gold, &id);
    gold.api.http.delete(&format!("/vms/{id}/")).empty_204();
    restore(&mut gold, &id, &backup);
    copies(&mut gold);
    gold.finish();
}

fn empty_site(gold: &mut Gold) {
    let answer = gold.api.get("/pms/");
    let values = gold.check("pm", Some("pm"), 200, &answer);
    values.are(&[
        ("data.uuid", "00000000-0000-0000-0000-0000b105f00d"),
        ("data.name", "host1"),
        ("data.status", "Up"),
        ("data.cpu", "8"),
        ("data.memory", "16384"),
    ]);
    assert_eq!(values.all("network.name"), host_interfaces());
    let same = gold.api.get("/pms/00000000-0000-0000-0000-0000b105f00d/");
    assert_eq!(same.body, answer.body);
    let all = gold.api.get("/pms/all/");
    let values = gold.check("pms", Some("pms"), 200, &all);
    values.are(&[
        ("d.uuid", "00000000-0000-0000-0000-0000b105f00d"),
        ("d.name", "host1"),
        ("d.status", "Up"),
        ("d.cpu", "8"),
        ("d.memory", "16384"),
    ]);
    assert_eq!(values.all("network.name"), host_interfaces());
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    for (name, template, uri) in [
        ("storlinks-none", "storlinks", "/storlinks/"),
        ("storlinks-all-none", "storlinks_all", "/storlinks/all/"),
        ("templates-none-v1", "templates_v1", "/v1/templates/"),
        ("templates-none-v2", "templates_v2", "/v2/templates/"),
        ("vms-none", "vms", "/vms/"),
    ] {
        let answer = gold.api.get(uri);
        gold.check(name, Some(template), 200, &answer);
    }
    let answer = gold.api.get("/tasks/");
    gold.check("tasks-none", None, 200, &answer);
}

fn storlink_and_template(gold: &mut Gold) {
    let dir = gold.api.app.site.store_dir();
    let body = file("contract/bodies/storlink-create.xml").replace("/data1", dir.to_str().unwrap());
    let answer = gold.api.post("/storlinks/create/", &body);
    gold.check("storlink-create", Some("root"), 201, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.get("/storlinks/");
    let values = gold.check("storlinks", Some("storlinks"), 200, &answer);
    values.are(&[
        ("storlink.id", "1"),
        ("storlink.pm", "00000000-0000-0000-0000-0000b105f00d"),
        ("storlink.name", "store1"),
        ("storlink.link", dir.to_str().unwrap()),
        ("storlink.type", "LO"),
        ("storlink.level", "FL"),
        ("storlink.desc", "VM store1"),
        ("storlink.shared", "True"),
    ]);
    let all = gold.api.get("/storlinks/all/");
    let all = gold.check("storlinks-all", Some("storlinks_all"), 200, &all);
    all.are(&[
        ("storlink.pm_name", "host1"),
        ("storlink.name", "store1"),
        ("storlink.pm", values.all("storlink.pm")[0]),
    ]);
    let number = |hole| values.all(hole)[0].parse::<u64>().unwrap();
    assert!(number("storlink.size") > 0 && number("storlink.free") <= number("storlink.size"));

    make_image(&dir.join(format!("{IMAGE}.qcow2")), Format::Qcow2, 4);
    let body = file("contract/bodies/template-add.xml").replace("<storlink>11<", "<storlink>1<");
    let answer = gold.api.post("/templates/add/", &body);
    gold.check("template-add", Some("root"), 201, &answer).are(&[("data.result", "success")]);
    let v1 = gold.api.get("/v1/templates/");
    let v1 = gold.check("templates-v1", Some("templates_v1"), 200, &v1);
    let v2 = gold.api.get("/templates/");
    let v2 = gold.check("templates-v2", Some("templates_v2"), 200, &v2);
    for values in [&v1, &v2] {
        values.are(&[
            ("gvm.name", "debian 8 64bit template"),
            ("gvm.size", "4"),
            ("gvm.os", "DEBIAN"),
            ("gvm.os_arch", "X64"),
            ("gvm.desc", "Debian 8 jessie 64bit template"),
        ]);
    }
    assert_eq!(v1.all("gvm.uuid"), v2.all("gvm.uuid"));
    v2.are(&[
        ("gvm.lock_statue", "False"),
        ("gvm.pm", "00000000-0000-0000-0000-0000b105f00d"),
        ("gvm.state", "SHUTDOWN"),
        ("gvm.recent_booted_at", "None"),
    ]);
    for (image, bytes) in [("debian 12.iso", 700 << 20), ("<b>.ISO", 1)] {
        std::fs::File::create(dir.join(image)).unwrap().set_len(bytes).unwrap();
    }
    let answer = gold.api.get("/storlinks/1/isos/");
    gold.check("isos", None, 200, &answer);
    // Again: refused, and recorded as that.
    gold.api.post("/templates/add/", &body).refused(400, "a template named debian 8 64bit template exists already");
    let answer = gold.api.get("/tasks/");
    gold.check("tasks", None, 200, &answer);
    let answer = gold.api.get(&format!("/tasks/{}/", answer.ids("task")[0]));
    gold.check("task-failed", None, 200, &answer);
}

/// The id of the VM that the manual's body makes.
fn vms(gold: &mut Gold) -> String {
    let template = gold.api.get("/templates/").ids("template")[0].clone();
    let body = file("contract/bodies/vm-create.xml").replace("$template_uuid", &template).replace("$storlink_id", "1");
    let answer = gold.api.post("/vms/", &body);
    gold.check("vm-create", Some("root"), 201, &answer).are(&[("data.result", "success")]);
    let id = gold.api.vm_id("test_vm");
    let answer = gold.api.get(&format!("/vms/{id}/"));
    let values = gold.check("vm", Some("vm"), 200, &answer);
    values.are(&[
        ("data.uuid", &id),
        ("data.name", "test_vm"),
        ("data.status", "SHUTDOWN"),
        ("data.cpu", "1"),
        ("data.memory", "512"),
        ("data.maxmem", "512"),
        ("data.disk_size", "4"),
        ("data.pm", "00000000-0000-0000-0000-0000b105f00d"),
        ("data.os", "DEBIAN"),
        ("data.os_type", "X64"),
        ("data.created_at", "2017-07-26 15:04:05"),
        ("data.recent_booted_at", "None"),
        ("data.vnc_port", ""),
    ]);
    assert_eq!(values.all("net.name"), ["eth0", "eth1"]);
    assert_eq!(values.all("net.switch_name"), ["xenbr0", "xenbr1"]);
    assert!(values.all("net.mac").iter().all(|mac| mac.starts_with("00:16:3e:") && mac.len() == 17));
    assert_eq!(values.all("data.vnc_passwd")[0].len(), 8);

    // One without template, NICs and description, in words that XML must escape.
    let body = "<vm><name>&lt;b&gt; &amp; \"c\" 가</name><storlink>1</storlink><cpu_core>2</cpu_core><memory>64</memory>\
                <maxmem>128</maxmem><os_disk_size>3</os_disk_size><extra_disk_size>2</extra_disk_size></vm>";
    gold.api.post("/vms/", body).done(201, "vm &lt;b&gt; &amp; &quot;c&quot; 가 is created");
    let answer = gold.api.get("/vms/");
    let values = gold.check("vms", Some("vms"), 200, &answer);
    assert_eq!(values.all("vm.uuid"), answer.ids("vm"));
    assert_eq!(values.all("vm.name"), ["test_vm", "&lt;b&gt; &amp; &quot;c&quot; 가"]);
    assert_eq!(values.all("vm.cpu"), ["1", "2"]);
    assert_eq!(values.all("vm.memory"), ["512", "64"]);
    assert_eq!(values.all("vm.maxmem"), ["512", "128"]);
    assert_eq!(values.all("vm.disk_size"), ["4", "5"]);
    assert_eq!(values.all("vm.os"), ["DEBIAN", ""]);
    assert_eq!(values.all("vm.os_arch"), ["X64", ""]);
    assert_eq!(values.all("vm.recent_booted_at"), ["None", "None"]);
    assert_eq!(values.all("net.switch_name"), ["xenbr0", "xenbr1"]);
    let second = gold.api.get(&format!("/vms/{}/", answer.ids("vm")[1]));
    let values = gold.check("vm-bare", Some("vm"), 200, &second);
    values.are(&[
        ("data.cpu", "2"),
        ("data.memory", "64"),
        ("data.maxmem", "128"),
        ("data.disk_size", "5"),
        ("data.os", ""),
        ("data.os_type", ""),
    ]);
    assert!(values.all("net.name").is_empty());
    id
}

fn volumes(gold: &mut Gold) {
    let app = &gold.api.app;
    let orphan = VolumeName::new(DiskId(uuid::Uuid::from_u128(0xfff)), Format::Qcow2);
    let path = app.site.store_dir().join(app.orphan(StorlinkId(1), Format::Qcow2).as_str());
    std::fs::rename(path, app.site.store_dir().join(orphan.as_str())).unwrap();
    std::fs::write(app.site.store_dir().join("<notes> & more"), "mine").unwrap();
    let answer = gold.api.get("/storlinks/1/volumes/");
    gold.check("volumes", None, 200, &answer);
    let dir = gold.api.app.site.store_dir();
    std::fs::remove_file(dir.join(orphan.as_str())).unwrap();
    std::fs::remove_file(dir.join("<notes> & more")).unwrap();
}

fn power(gold: &mut Gold, id: &str) {
    let of = |gold: &Gold, verb: &str| gold.api.post(&format!("/vms/{id}/{verb}/"), "");
    let answer = of(gold, "start");
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    gold.check("vm-start", Some("root"), 200, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.get(&format!("/vms/{id}/"));
    gold.check("vm-running", Some("vm"), 200, &answer).are(&[
        ("data.status", "RUNNING"),
        ("data.recent_booted_at", "2017-07-26 15:04:05"),
        ("data.vnc_port", "5900"),
    ]);
    let answer = gold.api.post(&format!("/vms/{id}/console/"), "");
    assert_eq!(answer.header("allow"), Some("GET, POST, HEAD, OPTIONS"));
    gold.check("console", None, 201, &answer);
    for verb in ["suspend", "resume", "reboot", "reset"] {
        let answer = of(gold, verb);
        gold.check(&format!("vm-{verb}"), Some("root"), 200, &answer).are(&[("data.result", "success")]);
    }
    let answer = gold.api.get("/pmpperf/");
    gold.check("pmpperf", Some("pmpperf"), 200, &answer).are(&[
        ("data.uuid", "00000000-0000-0000-0000-0000b105f00d"),
        ("data.vm_count", "2"),
        ("data.cpus", "8"),
        ("data.used_cpu_cores", "1"),
    ]);
    let answer = of(gold, "shutdown");
    gold.check("vm-shutdown", Some("root"), 200, &answer).are(&[("data.result", "success")]);

    // A start that does not come to its end yet.
    let fake = gold.api.app.site.fake.clone();
    fake.hold(Verb::Start);
    let asynchronous = [("Prefer", "respond-async")];
    let answer = gold.api.http.ask("POST", &format!("/vms/{id}/start/"), &asynchronous, "");
    gold.check("accepted", Some("root"), 202, &answer).are(&[("data.result", "success")]);
    let task = answer.header("location").unwrap().to_owned();
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    assert!(fake.wait_held(Verb::Start, 1, PATIENCE));
    let answer = gold.api.get(&task);
    gold.check("task-running", None, 200, &answer);
    fake.release(Verb::Start);
    let answer = gold.api.get(&format!("{task}?wait"));
    gold.check("task-done", None, 200, &answer);
    let answer = of(gold, "poweroff");
    gold.check("vm-poweroff", Some("root"), 200, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.http.send("PUT", "/pms/update-authorized-keys/", "");
    gold.check("pm-authorize-keys", Some("root"), 201, &answer).are(&[("data.result", "success")]);
}

/// A template of its own: made, looked at, started, gone.
fn template(gold: &mut Gold) {
    let body = file("contract/bodies/template-new.xml").replace("<storlink>11<", "<storlink>1<");
    let answer = gold.api.post("/templates/add_new/", &body.replace("debian 8 64bit template", "new one"));
    gold.check("template-new", Some("root"), 201, &answer).are(&[("data.result", "success")]);
    // Made by a clock that stands: the order in the list is that of the ids.
    let id = gold.api.get("/templates/").ids("template").pop().unwrap();
    let uri = format!("/templates/{id}/");
    let v1 = gold.api.get(&format!("/v1{uri}"));
    gold.check("template-v1", None, 200, &v1);
    let v2 = gold.api.get(&uri);
    gold.check("template-v2", Some("template_v2"), 200, &v2).are(&[
        ("gvm.uuid", &id),
        ("gvm.name", "new one"),
        ("gvm.size", "102400"),
        ("gvm.lock_statue", "False"),
        ("gvm.pm", "00000000-0000-0000-0000-0000b105f00d"),
        ("gvm.state", "SHUTDOWN"),
        ("gvm.recent_booted_at", "None"),
        ("gvm.vnc_port", "None"),
        ("gvm.vnc_password", "None"),
    ]);
    let answer = gold.api.get(&format!("{uri}disks/"));
    let values = gold.check("template-disks", Some("template_disks"), 200, &answer);
    assert_eq!(values.all("d.uuid"), [answer.ids("disk")[0].as_str(); 2]);
    values.are(&[
        ("d.order", "0"),
        ("d.size", "102400"),
        ("d.vm", &id),
        ("d.desc", ""),
        ("d.created_at", "2017-07-26 15:04:05"),
        ("d.format", "qcow2"),
        ("d.type", "FL"),
        ("d.storlink", "1"),
    ]);
    let answer = gold.api.post(&format!("{uri}start/"), "");
    gold.check("template-start", Some("root"), 200, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.get(&uri);
    let values = gold.check("template-running", Some("template_v2"), 200, &answer);
    values.are(&[("gvm.state", "RUNNING"), ("gvm.recent_booted_at", "2017-07-26 15:04:05")]);
    assert!(values.all("gvm.vnc_port")[0].starts_with("59") && values.all("gvm.vnc_password")[0].len() == 8);
    let answer = gold.api.post(&format!("{uri}poweroff/"), "");
    gold.check("template-poweroff", Some("root"), 200, &answer).are(&[("data.result", "success")]);
    gold.api.http.delete(&uri).empty_204();
}

fn failures(gold: &mut Gold) {
    let stock = super::Stock { storlink: "1".to_owned(), template: String::new() };
    for (name, status, answer) in [
        ("failure-400-fields", 400, gold.api.post("/vms/", "<vm/>")),
        ("failure-400-exists", 400, gold.api.post("/vms/", &vm("test_vm", &stock, "<os_disk_size>1</os_disk_size>"))),
        ("failure-404-uri", 404, gold.api.get("/nope/")),
        ("failure-404-object", 404, gold.api.get(&format!("/vms/{}/", super::NOBODY))),
        ("failure-405", 405, gold.api.http.send("PUT", "/vms/", "")),
        ("failure-501", 501, gold.api.post(&format!("/vms/{}/migrate/", super::NOBODY), "")),
    ] {
        gold.check(name, Some("root"), status, &answer).are(&[("data.result", "failure")]);
    }
    let answer = gold.api.http.ask("OPTIONS", "/vms/", &[], "");
    gold.check("options", None, 200, &answer);
}

fn devices(gold: &mut Gold, id: &str) {
    let disks = format!("/vms/{id}/disks/");
    let body = file("contract/bodies/disk-create.xml").replace("$storlink", "1").replace("$desc", "a &lt; b");
    let answer = gold.api.post(&disks, &body);
    let values = gold.check("disk-create", Some("disk"), 201, &answer);
    let made = answer.ids("disk")[0].clone();
    assert_eq!(values.all("data.uuid"), [&made, &made]);
    values.are(&[
        ("data.size", "1024"),
        ("data.vm", id),
        ("disk.desc", "a &lt; b"),
        ("disk.created_at", "2017-07-26 15:04:05"),
        ("disk.format", "qcow2"),
        ("disk.type", "FL"),
        ("disk.storlink", "1"),
    ]);
    let answer = gold.api.get(&disks);
    let values = gold.check("disks", Some("disks"), 200, &answer);
    let first = answer.ids("disk")[0].clone();
    assert_eq!(values.all("d.uuid"), [&first, &first, &made, &made]);
    assert_eq!(values.all("d.order"), ["0", "1"]);
    assert_eq!(values.all("d.size"), ["4", "1024"]);
    assert_eq!(values.all("d.vm"), [id, id]);
    assert_eq!(values.all("d.desc"), ["", "a &lt; b"]);
    assert_eq!(values.all("d.type"), ["FL", "FL"]);
    owned_disks(gold, id, &first);
    gold.api.http.delete(&format!("{disks}{made}/")).empty_204();

    let interfaces = format!("/vms/{id}/interfaces/");
    let answer = gold.api.post(&interfaces, &file("contract/bodies/interface-create-v2.xml"));
    gold.check("interface-create", Some("root"), 201, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.get(&interfaces);
    let values = gold.check("interfaces", Some("interfaces"), 200, &answer);
    assert_eq!(values.all("iface.id"), answer.ids("interface"));
    assert_eq!(values.all("iface.name"), ["eth0", "eth1", "eth2"]);
    assert_eq!(values.all("iface.ip"), ["", "", "192.168.0.1"]);
    assert_eq!(values.all("iface.vm"), [id; 3]);
    let bare = gold.api.get("/vms/").ids("vm")[1].clone();
    let answer = gold.api.get(&format!("/vms/{bare}/interfaces/"));
    gold.check("interfaces-none", Some("interfaces"), 200, &answer);
}

/// Two on a VM that is off, which goes back to the first and runs.
fn snapshots(gold: &mut Gold, id: &str) {
    let uri = format!("/vms/{id}/snapshots/");
    let answer = gold.api.get(&uri);
    gold.check("snapshots-none", Some("snapshots"), 200, &answer);
    let body = |name: &str, desc: &str| {
        let body = file("contract/bodies/snapshot-take.xml").replace("$storlink_id", "1");
        body.replace("$snapshot_name", name).replace("$snapshot_desc", desc)
    };
    let answer = gold.api.post(&uri, &body("fresh", "a &lt; b"));
    let first = answer.ids("snapshot")[0].clone();
    gold.check("snapshot-take", Some("snapshot"), 201, &answer).are(&[
        ("data.uuid", &first),
        ("data.name", "fresh"),
        ("data.type", "SAVED"),
        ("data.parent", "None"),
        ("data.created_at", "2017-07-26 15:04:05"),
        ("data.desc", "a &lt; b"),
    ]);
    let answer = gold.api.post(&uri, &body("fresh", ""));
    let second = answer.ids("snapshot")[0].clone();
    let values = gold.check("snapshot-take-on-another", Some("snapshot"), 201, &answer);
    values.are(&[("data.uuid", &second), ("data.parent", &first), ("data.desc", "")]);
    let answer = gold.api.get(&uri);
    let values = gold.check("snapshots", Some("snapshots"), 200, &answer);
    assert_eq!(values.all("snapshot.id"), [&first, &second]);
    assert_eq!(values.all("snapshot.created_at"), ["2017-07-26 15:04:05"; 2]);
    assert_eq!(values.all("snapshot.desc"), ["a &lt; b", ""]);
    let answer = gold.api.post(&format!("{uri}{first}/"), "");
    gold.check("snapshot-restore", Some("root"), 201, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.post(&format!("/vms/{id}/start/snapshots/{first}/"), "");
    gold.check("snapshot-start", Some("root"), 200, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.http.delete(&format!("{uri}{first}/"));
    gold.check("failure-400-is-parent", Some("root"), 400, &answer).are(&[("data.result", "failure")]);
    gold.api.post(&format!("/vms/{id}/poweroff/"), "").done(200, "vm test_vm is powered off");
}

/// Its id.
fn backup(gold: &mut Gold, id: &str) -> String {
    let list = format!("/vms/{id}/backups/");
    let answer = gold.api.get(&list);
    gold.check("backups-none", Some("vmbackups"), 200, &answer);
    let body = file("contract/bodies/backup-create.xml").replace(">2<", ">1<").replace("$backup_name", "a &lt; b");
    let answer = gold.api.post(&list, &body);
    gold.check("backup-create", Some("root"), 200, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.get(&list);
    let backup = answer.ids("vmbackup")[0].clone();
    gold.check("backups", Some("vmbackups"), 200, &answer).are(&[
        ("backup.id", &backup),
        ("backup.name", "a &lt; b"),
        ("backup.vm", id),
        ("backup.created_at", "2017-07-26 15:04:05"),
        ("backup.size", "4"),
    ]);
    assert_eq!(gold.api.get("/backups/").body, answer.body);
    for verb in ["verify", "prove"] {
        let answer = gold.api.post(&format!("{list}{backup}/{verb}/"), "");
        gold.check(&format!("backup-{verb}"), Some("root"), 200, &answer).are(&[("data.result", "success")]);
    }
    backup
}

/// Of the VM, which is deleted by now.
fn restore(gold: &mut Gold, id: &str, backup: &str) {
    let uri = format!("/vms/{id}/backups/{backup}/");
    let answer = gold.api.post(&uri, "");
    gold.check("backup-restore", Some("root"), 201, &answer).are(&[("data.result", "success")]);
    gold.api.http.delete(&uri).empty_204();
    gold.api.http.delete(&format!("/vms/{id}/")).empty_204();
}

/// Of the VM that is left.
fn copies(gold: &mut Gold) {
    let id = gold.api.get("/vms/").ids("vm").remove(0);
    let second = gold.api.app.second_storlink().to_string();
    let body = |name: &str| {
        let body = file(&format!("contract/bodies/{name}.xml")).replace(">2<", &format!(">{second}<"));
        body.replace("$template_name", "of test_vm").replace("$desc", "a &lt; b")
    };
    let answer = gold.api.post(&format!("/vms/{id}/copy/"), &body("vm-copy"));
    gold.check("vm-copy", Some("root"), 201, &answer).are(&[("data.result", "success")]);
    let answer = gold.api.post(&format!("/templates/create/vms/{id}/"), &body("template-create"));
    gold.check("template-create", Some("template_made"), 201, &answer).are(&[
        ("data.uuid", &answer.ids("template")[0]),
        ("data.name", "of test_vm"),
        ("data.size", "5"),
        ("data.desc", "a &lt; b"),
    ]);
    let answer = gold.api.post(&format!("/vms/{id}/smigrate/"), &body("vm-smigrate"));
    gold.check("vm-smigrate", Some("root"), 201, &answer).are(&[("data.result", "success")]);
}

/// Of a snapshot and of a backup: rows like those of a disk that there is.
fn owned_disks(gold: &mut Gold, id: &str, like: &str) {
    let (snap, bak) = (SnapshotId(uuid::Uuid::from_u128(0x51)), BackupId(uuid::Uuid::from_u128(0xb1)));
    let (vm, name) = (id.parse().unwrap(), "kept".to_owned());
    let store = gold.api.app.store();
    let model = store.read(|c| disks::find(c, like.parse().unwrap())).unwrap().unwrap();
    let (desc, created_at) = (String::new(), model.created_at);
    let kept = Snapshot {
        id: snap,
        vm,
        name: name.clone(),
        kind: SnapshotKind::Saved,
        parent: None,
        desc: desc.clone(),
        created_at,
    };
    let backup = Backup {
        id: bak,
        vm,
        name,
        storlink: model.storlink,
        size: model.size,
        desc,
        created_at,
        config: BackupConfig::default(),
        manifest: String::new(),
        verified_at: None,
        proven_at: None,
    };
    let disk = |n: u128, owner: DiskOwner| {
        let id = DiskId(uuid::Uuid::from_u128(n));
        Disk { id, owner, volume: VolumeName::new(id, model.format), ..model.clone() }
    };
    let (frozen, copied) = (disk(1, DiskOwner::Snapshot(snap)), disk(2, DiskOwner::Backup(bak)));
    let insert = |c: &mut Conn| {
        snapshots::insert(c, &kept)?;
        backups::insert(c, &backup)?;
        disks::insert(c, &frozen)?;
        disks::insert(c, &copied)
    };
    store.write_tx(insert).unwrap();
    let answer = gold.api.get(&format!("/vms/{id}/disks/snapshots/{snap}/"));
    let snap_id = snap.to_string();
    gold.check("disks-of-snapshot", Some("disks"), 200, &answer).are(&[("d.snapshot", &snap_id), ("d.order", "0")]);
    let answer = gold.api.get(&format!("/vms/{id}/disks/backups/{bak}/"));
    let bak_id = bak.to_string();
    gold.check("disks-of-backup", Some("disks"), 200, &answer).are(&[("d.backup", &bak_id), ("d.order", "0")]);
    let remove = |c: &mut Conn| {
        disks::remove(c, frozen.id)?;
        snapshots::remove(c, snap)?;
        disks::remove(c, copied.id)?;
        backups::remove(c, bak)
    };
    store.write_tx(remove).unwrap();
}
