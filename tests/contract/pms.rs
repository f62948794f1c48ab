//! Rows 1 to 5: the hosts of a site, their keys, and how busy one is.

use std::os::unix::fs::PermissionsExt;

use pengx::model::Pm;
use pengx::store::pms;

use super::{Api, NOBODY};
use crate::harness::http::Answer;
use crate::harness::server::Place;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const OTHER: &str = "0f6a9c1e-0000-4000-8000-00000000000b";

/// A second host, registered by itself an hour ago, and silent since.
fn add_host(api: &Api, ssh_pubkey: Option<&str>) {
    let here = api.app.site.pm();
    let hour_ago = here.heartbeat_at - chrono::Duration::hours(1);
    let pm = Pm {
        id: OTHER.parse().unwrap(),
        name: "host2".to_owned(),
        ssh_pubkey: ssh_pubkey.map(str::to_owned),
        heartbeat_at: hour_ago,
        created_at: here.created_at + chrono::Duration::hours(1),
        ..here
    };
    api.app.store().write_tx(|tx| pms::save(tx, &pm)).unwrap();
}

#[test]
fn a_host_without_a_heartbeat_is_down() {
    let api = Api::new();
    add_host(&api, None);
    let all = api.get("/pms/all/");
    assert_eq!(all.ids("pm"), [api.app.site.pm().id.to_string(), OTHER.to_owned()]);
    let status: Vec<_> = all.body.split("<status>").skip(1).map(|part| part.split('<').next().unwrap()).collect();
    assert_eq!(status, ["Up", "Down"]);
    for uri in [format!("/pms/{OTHER}/"), format!("/pms{OTHER}/"), format!("/pms:{OTHER}/")] {
        let one = api.get(&uri);
        assert_eq!((one.status, one.element("name"), one.element("status")), (200, "host2", "Down"), "{uri}");
        assert_eq!(one.element("interfaces"), "\n  ");
    }
    api.get(&format!("/pms/{NOBODY}/")).refused(404, &format!("there is no pm {NOBODY}"));
    api.get("/pms/nobody/").refused(404, "there is nothing at this URI");
}

#[test]
fn the_keys_of_all_hosts_are_written_and_the_rest_of_the_file_stays() {
    let api = Api::new();
    let path = api.app.site.settings.authorized_keys.clone().unwrap();
    let mine: &[u8] = b"ssh-rsa AAAA me\r\n\xff no end";
    std::fs::write(&path, mine).unwrap();
    add_host(&api, Some(&format!("{KEY} root@host2")));
    for method in ["POST", "PUT"] {
        let answer = api.http.send(method, "/pms/update-authorized-keys/", "");
        answer.done(201, "authorized_keys has the keys of 1 of 2 pms");
        let text = std::fs::read(&path).unwrap();
        let (ours, theirs) = text.split_at(text.len() - mine.len());
        assert_eq!(theirs, mine);
        let ours = std::str::from_utf8(ours).unwrap();
        let [begin, line, end] = ours.lines().collect::<Vec<_>>()[..] else { panic!("{ours}") };
        assert!(begin.starts_with("# BEGIN pengx") && end == "# END pengx", "{ours}");
        let options = "restrict,command=\"/usr/bin/pengx migration-receive\"";
        assert_eq!(line, format!("{options} {KEY} pengx-pm-{OTHER}"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A key that is taken back goes.
    add_host(&api, None);
    api.post("/pms/update-authorized-keys/", "").done(201, "authorized_keys has the keys of 0 of 2 pms");
    assert!(!String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains(KEY));
    let get = api.get("/pms/update-authorized-keys/");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST, PUT, OPTIONS")));
    api.app.assert_at_rest();
}

#[test]
fn a_key_or_a_file_that_cannot_be_trusted_is_refused_and_nothing_changes() {
    let api = Api::new();
    let path = api.app.site.settings.authorized_keys.clone().unwrap();
    std::fs::write(&path, "mine\n").unwrap();
    let refused = |why: &str| {
        let answer: Answer = api.post("/pms/update-authorized-keys/", "");
        assert_eq!((answer.status, answer.element("result")), (400, "failure"), "{answer:?}");
        assert!(answer.message().contains(why), "{answer:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine\n");
    };
    for bad in ["command=\"sh\" ssh-rsa AAAA", "ssh-ed25519 AAAA\nssh-rsa AAAA", "ssh-ed25519 AAAA"] {
        add_host(&api, Some(bad));
        refused("pm host2 is recorded with an ssh key that must");
    }
    add_host(&api, Some(KEY));
    let real = path.with_file_name("real");
    std::fs::rename(&path, &real).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    refused("is a symbolic link");
    api.app.assert_at_rest();
}

#[test]
fn performance_is_measured_from_the_first_answer_on() {
    let api = Api::new();
    for _ in 0..2 {
        let answer = api.get("/pmpperf/");
        assert_eq!(answer.status, 200, "{answer:?}");
        let number = |name: &str| -> f64 { answer.element(name).trim_end().parse().unwrap() };
        for name in ["cpu_util", "memory_util"] {
            assert!((0.0..=100.0).contains(&number(name)), "{answer:?}");
            assert_eq!(answer.element(name).trim_end().split_once('.').unwrap().1.len(), 1, "{answer:?}");
        }
        assert!(number("memory_util") > 0.0 && number("used_memory") < number("total_memory"), "{answer:?}");
        assert_eq!((number("vm_count"), number("used_cpu_cores"), number("total_cpu_cores")), (0.0, 0.0, 8.0));
        assert!(number("smt") >= 1.0);
    }
}

#[test]
fn a_key_file_of_this_host_that_holds_no_key_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("id.pub");
    let place = Place::new("fake:///", &format!("ssh_public_key = '{}'", path.display()));
    for (content, why) in [
        (format!("command=\"sh\" {KEY}\n"), "must begin with one of ssh-ed25519"),
        (format!("{KEY}\n{KEY}\n"), "must be one line"),
    ] {
        std::fs::write(&path, content).unwrap();
        let done = place.try_serve(&[]);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{said}");
        assert!(said.contains("ssh_public_key: ") && said.contains(why), "{said}");
    }
    std::fs::write(&path, format!("{KEY} root@here\n")).unwrap();
    let program = place.serve();
    let recorded = place.store().read(pms::all).unwrap();
    assert_eq!(recorded[0].ssh_pubkey.as_deref(), Some(KEY));
    program.terminate();
    assert!(program.wait().success());
}
