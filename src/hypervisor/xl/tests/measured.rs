//! What is told of guests that run, over the same scripted `xl`.

use super::*;
use crate::model::VncEndpoint;

const TOP: &str = "NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) MAXMEM(%) VCPUS NETS NETTX(k) NETRX(k) VBDS   \
                   VBD_OO   VBD_RD   VBD_WR  VBD_RSECT  VBD_WSECT SSID\n";

fn details(kind: &str) -> String {
    format!(
        r#"[{{"domid": 7, "config": {{"c_info": {{"type": "{kind}", "name": "x", "uuid": "{ID}"}},
            "b_info": {{"avail_vcpus": [0], "max_memkb": 65536, "target_memkb": 32768}},
            "disks": [{{"pdev_path": "/s/<a>.raw", "vdev": "xvda", "format": "raw", "readwrite": 1}}],
            "nics": [{{"mac": "00:16:3e:00:00:01"}}]}}}}]"#
    )
}

/// One guest, and a stranger that has no uuid of ours.
fn stage(kind: &'static str, flags: &'static str) -> Stage {
    Stage::new(move |line| match line {
        "xl list -v" => said(&format!(
            "{HEAD}Domain-0 0 768 2 r----- 9.0 {} - -\nx 7 32 2 {flags} 12.5 {ID} - -\n",
            uuid::Uuid::nil()
        )),
        "xl vcpu-list" => said(
            "Name ID VCPU CPU State Time(s) Affinity (Hard / Soft)\nDomain-0 0 0 0 r-- 9.0 all / all\n\
             x 7 0 1 -b- 7.5 all / all\nx 7 1 0 r-- 5.0 all / all\nx 7 2 - --p 0.0 all / all\ny 8 0 1 -b- 1.0 all / all\n",
        ),
        "xentop -b -f -i 1" => said(&format!(
            "{TOP}x --b--- 12 0.0 32768 6.3 33792 6.3 2 2 3 19 1 0 260 1440 10 20 0\n\
             y --b--- 12 0.0 1 6.3 1 6.3 2 2 3 19 1 0 260 1440 10 20 0\nDomain-0 -----r 9 0.0 1 1 no limit n/a 2 0 0 0 0 0 0 0 0 0 0\n"
        )),
        "xl list -l 7" => said(&details(kind)),
        line if line.starts_with("xenstore-read") => said("5901\n"),
        line => panic!("{line}"),
    })
}

#[test]
fn all_guests_are_measured_in_two_calls_besides_the_list() {
    let stage = stage("pv", "-b----");
    stage.xl.inner.definitions.write(&definition(ID), Kept::Run).unwrap();
    let expected = DomainStats {
        id: id(),
        cpu_nanos: 12_500_000_000,
        vcpu_nanos: vec![7_500_000_000, 5_000_000_000],
        memory_kib: 32768,
        max_memory_kib: 65536,
        memory_used_kib: None,
        net_rx: 3 << 10,
        net_tx: 19 << 10,
        disk_read: 10 * 512,
        disk_written: 20 * 512,
    };
    assert_eq!(stage.xl.stats().unwrap(), [expected]);
    assert_eq!(stage.told(""), ["xl list -v", "xl vcpu-list", "xentop -b -f -i 1"]);
    assert_eq!(stage.xl.domain(id()).unwrap().unwrap().number, Some(7));
    assert_eq!(super::with("---sc-").xl.domain(id()).unwrap().unwrap().number, None);
}

#[test]
fn what_has_ended_is_not_measured_and_what_is_strange_is_said() {
    let ended = stage("pv", "---s--");
    assert_eq!(ended.xl.stats().unwrap(), []);
    assert_eq!(ended.xl.addresses(id()).unwrap(), []);
    let strange = Stage::new(|line| said(if line == "xl list -v" { HEAD } else { "what?\nthis\n" }));
    let why = strange.xl.stats().unwrap_err().to_string();
    assert!(why.contains("xl said what pengx does not understand"), "{why}");
    let away = Stage::new(|line| if line == "xl list -v" { said(HEAD) } else { failed("xl: no") });
    assert!(away.xl.stats().is_err());
}

/// A QEMU that makes pictures, in PNG if it is new enough.
fn painting(socket: &Path, png: bool) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        writeln!(stream, r#"{{"QMP": {{}}}}"#).unwrap();
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            let told: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            let refused = told["execute"] == "screendump" && told["arguments"]["format"] == "png" && !png;
            if refused {
                writeln!(
                    stream,
                    r#"{{"error": {{"class": "GenericError", "desc": "Parameter 'format' is unexpected"}}}}"#
                )
                .unwrap();
                continue;
            }
            if let Some(file) = told["arguments"]["filename"].as_str() {
                std::fs::write(file, if png { "a PNG" } else { "a PPM" }).unwrap();
            }
            writeln!(stream, r#"{{"return": {{}}}}"#).unwrap();
        }
    });
}

#[test]
fn the_qemu_of_a_whole_machine_takes_a_picture_of_its_screen() {
    for (png, media_type, bytes) in [(true, "image/png", "a PNG"), (false, "image/x-portable-pixmap", "a PPM")] {
        let stage = stage("hvm", "-b----");
        painting(&stage.xl.inner.monitor_path(7), png);
        let picture = stage.xl.screenshot(id()).unwrap();
        assert_eq!((picture.media_type.as_str(), picture.bytes.as_slice()), (media_type, bytes.as_bytes()));
        assert!(!stage.xl.inner.options.dir.join(format!("{ID}.screen")).exists(), "it is read and removed");
    }
    let why = stage("pv", "-b----").xl.screenshot(id()).unwrap_err().to_string();
    assert_eq!(why, "Xen cannot take a picture of the screen of a guest that is not HVM");
    let why = stage("hvm", "---s--").xl.screenshot(id()).unwrap_err().to_string();
    assert_eq!(why, format!("vm {ID} is SHUTDOWN; it must be running"));
    let why = stage("hvm", "-b----").xl.screenshot(id()).unwrap_err().to_string();
    assert_eq!(why, "Xen refused: no QEMU serves the disks of the guest");
}

#[test]
fn a_domain_is_described_as_it_runs_and_as_it_is_defined() {
    let ours = stage("pv", "-b----");
    let mut run = definition(ID);
    run.spec.title = "a < b".to_owned();
    run.spec.vnc_password = Secret::new("geheim".to_owned());
    run.spec.nics = vec![NicSpec { mac: Mac([0, 0x16, 0x3e, 0, 0, 1]), link: NicLink::Bridge("xenbr0".to_owned()) }];
    ours.xl.inner.definitions.write(&run, Kept::Run).unwrap();
    let on = ours.xl.description(id()).unwrap().unwrap();
    let screen = VncEndpoint { host: "127.0.0.1".to_owned(), port: 5901 };
    assert_eq!(ours.xl.domain(id()).unwrap().unwrap().vnc, Some(screen));
    for part in [
        "<domain type='xen' id='7'>",
        "<type arch='x86_64'>xen</type>",
        "bridge='xenbr0'",
        "port='5901'",
        ID,
        "00:16:3e:00:00:01",
    ] {
        assert!(on.contains(part), "{part} is not in {on}");
    }
    assert!(!on.contains("geheim"));

    let off = stage("pv", "---s--").xl.description(id()).unwrap().unwrap();
    assert!(off.contains("<domain type='xen'>") && off.contains("port='-1'"), "{off}");

    // Nothing is kept of what somebody else has started.
    let theirs = stage("hvm", "-b----").xl.description(id()).unwrap().unwrap();
    for part in ["<name>x</name>", "<type arch='x86_64'>hvm</type>", "file='/s/&lt;a&gt;.raw'", ">65536</memory>"] {
        assert!(theirs.contains(part), "{part} is not in {theirs}");
    }
    let nobody: VmId = "5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a11".parse().unwrap();
    assert_eq!(stage("pv", "-b----").xl.description(nobody).unwrap(), None);
}
