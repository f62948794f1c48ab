//! The real program: `pengx backup`, beside a server and without one.

use std::process::{Command, Output};

use crate::harness::app::make_image;
use crate::harness::server::Place;

use super::*;

fn pengx(place: &Place, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pengx"));
    for name in ["CONFIG", "LISTEN", "DATABASE_URL", "HYPERVISOR", "DATA_DIR"] {
        command.env_remove(format!("PENGX_{name}"));
    }
    let data = place.data_dir();
    command.args(args).args(["--config", "/dev/null", "--data-dir", text(&data)]).output().unwrap()
}

/// Status and lines of standard output.
#[track_caller]
fn said(place: &Place, args: &[&str], status: i32) -> Vec<String> {
    let output = pengx(place, args);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A place with two backups of one VM; their ids, and the VM's.
fn stocked() -> (Place, crate::harness::server::Program, [String; 2], String) {
    let place = Place::new("fake:///", "");
    let server = place.serve();
    let link = place.store_dir();
    let body = format!("<s><name>s</name><link>{}</link><type>LO</type><level>FL</level></s>", text(&link));
    assert_eq!(server.post("/storlinks/", &body).status, 201);
    make_image(&link.join("bed05d84-7c44-4720-9588-57cbd8ecef8c"), Format::Qcow2, 4);
    let body = "<t><name>t</name><os>DEBIAN</os><os_arch>X64</os_arch><disk><storlink>1</storlink>\
                <uuid>bed05d84-7c44-4720-9588-57cbd8ecef8c</uuid><format>qcow2</format></disk></t>";
    assert_eq!(server.post("/templates/add/", body).status, 201);
    let template = server.get("/templates/").ids("template").remove(0);
    let body = format!(
        "<vm><name>web1</name><storlink>1</storlink><cpu_core>1</cpu_core><memory>64</memory>\
         <template>{template}</template></vm>"
    );
    assert_eq!(server.post("/vms/", &body).status, 201);
    let vm = server.get("/vms/").ids("vm").remove(0);
    for name in ["monday", "tuesday"] {
        let body = format!("<v><backup_name>{name}</backup_name><storlink>1</storlink></v>");
        assert_eq!(server.post(&format!("/vms/{vm}/backups/"), &body).status, 200);
    }
    let ids = server.get("/backups/").ids("vmbackup");
    let [a, b] = &ids[..] else { panic!("{ids:?}") };
    (place, server, [a.clone(), b.clone()], vm)
}

#[test]
fn backups_are_listed_and_verified_beside_a_server_and_without_one() {
    let (place, server, [a, b], vm) = stocked();
    let good = |id: &str, name: &str| format!("{id}\tweb1\t{name}\tgood");
    let all = [good(&a, "monday"), good(&b, "tuesday")];
    assert_eq!(said(&place, &["backup", "verify", "--all"], 0), all);
    assert_eq!(said(&place, &["backup", "verify", &b], 0), all[1..]);
    assert_eq!(said(&place, &["backup", "verify", &b, &a], 0), [all[1].clone(), all[0].clone()]);
    assert_eq!(server.post(&format!("/vms/{vm}/backups/{a}/verify/"), "").status, 200);
    let listed = said(&place, &["backup", "list"], 0);
    let fields: Vec<Vec<&str>> = listed.iter().map(|line| line.split('\t').collect()).collect();
    assert_eq!(fields.len(), 2);
    assert_eq!(fields[0][..4], [a.as_str(), &vm, "web1", "monday"]);
    assert!(fields[0].len() == 7 && fields[0][5].starts_with("20") && fields[0][6] == "never", "{listed:?}");
    assert_eq!(fields[1][5], "never");

    // A deleted VM's too, and damage; nothing is written, neither to the database nor to the storlink.
    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    let image = server.get(&format!("/vms/{vm}/disks/backups/{a}/")).ids("disk").remove(0);
    let file = place.store_dir().join(format!("{image}.qcow2"));
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let bad = format!(
        "{a}\tweb1\tmonday\tbad: pengx refused: backup monday of vm web1 cannot be trusted: image {image}.qcow2 is not \
         what it was in block 1 of 1, from byte 0 on"
    );
    let (files, rows) = (place.files(), server.get("/backups/").body);
    assert_eq!(said(&place, &["backup", "verify", "--all"], 1), [bad.clone(), all[1].clone()]);
    assert_eq!(said(&place, &["backup", "verify", &a], 1), std::slice::from_ref(&bad));
    assert_eq!(said(&place, &["backup", "verify", &b], 0), all[1..]);
    assert_eq!((place.files(), server.get("/backups/").body), (files, rows));
    assert!(place.store().read(|c| backups::find(c, a.parse().unwrap())).unwrap().unwrap().verified_at.is_some());
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(said(&place, &["backup", "verify", "--all"], 1), [bad, all[1].clone()]);
    place.assert_at_rest();
}

#[test]
fn another_hosts_backups_are_left_to_it_unless_they_are_named() {
    let (place, server, [a, b], _) = stocked();
    drop(server);
    let id = place.data_dir().join("pm-uuid");
    let other = "0f6a9c1e-0000-4000-8000-0000000000aa";
    let own = std::fs::read_to_string(&id).unwrap().trim().to_owned();
    std::fs::write(&id, other).unwrap();
    let elsewhere =
        |id: &str, name: &str| format!("{id}\tweb1\t{name}\telsewhere: storlink s is on pm {own} and not shared");
    let lines = [elsewhere(&a, "monday"), elsewhere(&b, "tuesday")];
    assert_eq!(said(&place, &["backup", "verify", "--all"], 0), lines);
    assert_eq!(said(&place, &["backup", "verify", &a], 1), lines[..1]);
}

#[test]
fn what_it_cannot_do_it_says() {
    let (place, server, [a, _], _) = stocked();
    let nobody = "0f6a9c1e-0000-4000-8000-00000000ffff";
    let refused = |args: &[&str], status: i32, says: &str| {
        let output = pengx(&place, args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{args:?}: {told}");
        assert!(told.contains(says), "{args:?}: {told}");
    };
    refused(&["backup", "verify", nobody], 1, &format!("there is no backup {nobody}"));
    refused(&["backup", "verify"], 2, "<ID>");
    refused(&["backup", "verify", "--all", &a], 2, "cannot be used with");
    refused(&["backup", "verify", "x"], 2, "must be a uuid");
    drop(server);
    let empty = Place::new("fake:///", "");
    let output = pengx(&empty, &["backup", "verify", "--all"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("pengx.db is not there"), "{output:?}");
    assert!(!empty.data_dir().exists(), "nothing is made");
    // The storlink is gone: not read, and no finding.
    std::fs::rename(place.store_dir(), place.store_dir().with_extension("away")).unwrap();
    let lines = said(&place, &["backup", "verify", "--all"], 1);
    let not_read = |line: &String| line.contains("\tnot read: ") && line.contains("is gone; mount it or make it");
    assert!(lines.len() == 2 && lines.iter().all(not_read), "{lines:?}");
}
