use std::path::PathBuf;

use super::*;
use crate::model::{DiskSpec, Format, MiB, NicSpec, Secret};

fn spec() -> DomainSpec {
    DomainSpec {
        id: "5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a10".parse().unwrap(),
        title: "web <1>".to_owned(),
        os: None,
        vcpus: 2,
        max_vcpus: 4,
        memory: MiB(512),
        max_memory: MiB(1024),
        disks: Vec::new(),
        nics: Vec::new(),
        pci: None,
        disc: None,
        console: None,
        vnc_password: Secret::new("s3cret".to_owned()),
    }
}

fn disk(order: u32, file: &str, format: Format, cache: CacheMode) -> DiskSpec {
    DiskSpec { order, source: VolumeSource::File(PathBuf::from(file)), format, cache, backing: Vec::new() }
}

/// The document around its devices.
fn document(domain_type: &str, cpu: &str, disks: &str, disc: &str, nics: &str) -> String {
    format!(
        "<domain type='{domain_type}'>
  <name>pengx-5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a10</name>
  <uuid>5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a10</uuid>
  <title>web &lt;1&gt;</title>
  <memory unit='MiB'>1024</memory>
  <currentMemory unit='MiB'>512</currentMemory>
  <vcpu current='2'>4</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <boot dev='hd'/>
    <boot dev='cdrom'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='{cpu}'/>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='pci' index='1' model='pci-bridge'>
      <address type='pci' domain='0' bus='0' slot='31' function='0'/>
    </controller>
    <controller type='pci' index='2' model='pci-bridge'>
      <address type='pci' domain='0' bus='0' slot='30' function='0'/>
    </controller>
    <controller type='pci' index='3' model='pci-bridge'>
      <address type='pci' domain='0' bus='0' slot='29' function='0'/>
    </controller>{disks}
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>{disc}
      <target dev='hdc' bus='ide'/>
      <readonly/>
    </disk>{nics}
    <serial type='pty'/>
    <console type='pty'/>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <graphics type='vnc' port='-1' autoport='yes' passwd='s3cret'>
      <listen type='address' address='127.0.0.1'/>
    </graphics>
    <video>
      <model type='vga'/>
    </video>
    <memballoon model='virtio'>
      <stats period='10'/>
    </memballoon>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>"
    )
}

#[test]
fn whole_documents() {
    assert_eq!(write(&spec(), false).unwrap(), document("qemu", "maximum", "", "", ""));
    assert_eq!(write(&spec(), true).unwrap(), document("kvm", "host-passthrough", "", "", ""));

    let mut full = spec();
    full.disks = vec![
        disk(1, "/s/two.raw", Format::Raw, CacheMode::Writeback),
        disk(0, "/s/one.qcow2", Format::Qcow2, CacheMode::None),
    ];
    full.nics = vec![
        NicSpec { mac: "52:54:00:00:00:01".parse().unwrap(), link: NicLink::Bridge("br0".to_owned()) },
        NicSpec { mac: "52:54:00:00:00:02".parse().unwrap(), link: NicLink::User },
    ];
    full.pci = "0000:03:10.4".parse().ok();
    full.disc = Some(VolumeSource::File(PathBuf::from("/s/disc.iso")));
    let disks = "
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' discard='unmap'/>
      <source file='/s/one.qcow2'/>
      <backingStore/>
      <target dev='vda' bus='virtio'/>
      <serial>5f1d3e0a9f5c4f43-0</serial>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
      <source file='/s/two.raw'/>
      <backingStore/>
      <target dev='vdb' bus='virtio'/>
      <serial>5f1d3e0a9f5c4f43-1</serial>
    </disk>";
    let disc = "
      <source file='/s/disc.iso'/>";
    let nics = "
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/>
      <source bridge='br0'/>
      <model type='virtio'/>
    </interface>
    <interface type='user'>
      <mac address='52:54:00:00:00:02'/>
      <model type='virtio'/>
    </interface>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source>
        <address domain='0' bus='3' slot='16' function='4'/>
      </source>
    </hostdev>";
    assert_eq!(write(&full, false).unwrap(), document("qemu", "maximum", disks, disc, nics));

    full.title = String::new();
    assert!(!write(&full, false).unwrap().contains("title"));
}

#[test]
fn a_proof_has_a_console_that_is_kept_and_nics_without_a_cable() {
    let mut proof = spec();
    proof.nics = vec![NicSpec { mac: "52:54:00:00:00:01".parse().unwrap(), link: NicLink::Unplugged }];
    proof.console = Some(VolumeSource::File(PathBuf::from("/s/a & b.log")));
    let nics = "
    <interface type='user'>
      <mac address='52:54:00:00:00:01'/>
      <model type='virtio'/>
      <link state='down'/>
    </interface>";
    let plain = document("qemu", "maximum", "", "", nics);
    let kept = "    <serial type='pty'>
      <log file='/s/a &amp; b.log' append='off'/>
    </serial>
";
    assert_eq!(write(&proof, false).unwrap(), plain.replace("    <serial type='pty'/>\n", kept));
}

#[test]
fn what_is_plugged_in_has_the_words_of_the_definition() {
    let mut spec = spec();
    spec.disks = vec![disk(1, "/s/two.raw", Format::Raw, CacheMode::Writeback)];
    let link = |link| NicSpec { mac: "52:54:00:00:00:01".parse().unwrap(), link };
    spec.nics = vec![link(NicLink::User), link(NicLink::Bridge("br0".to_owned()))];
    spec.disc = Some(VolumeSource::File(PathBuf::from("/s/disc.iso")));
    let whole = write(&spec, false).unwrap();
    let mut parts = vec![super::disk(spec.id, &spec.disks[0]).unwrap(), drive(spec.disc.as_ref()).unwrap()];
    parts.extend(spec.nics.iter().map(|spec| nic(spec).unwrap()));
    for part in parts {
        assert!(part.trim().starts_with('<') && whole.contains(part.trim()), "{part} is not in {whole}");
    }
    spec.disc = None;
    assert!(write(&spec, false).unwrap().contains(drive(None).unwrap().trim()));
}

#[test]
fn a_chain_is_declared_to_its_end() {
    let image = |file: &str, format| Layer { source: VolumeSource::File(PathBuf::from(file)), format };
    let backing = vec![image("/s/it's <2>.qcow2", Format::Qcow2), image("/t/base", Format::Raw)];
    let disk = DiskSpec { backing, ..disk(1, "/s/leaf.qcow2", Format::Qcow2, CacheMode::None) };
    let words = "
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' discard='unmap'/>
      <source file='/s/leaf.qcow2'/>
      <backingStore type='file'>
        <format type='qcow2'/>
        <source file='/s/it&#39;s &lt;2&gt;.qcow2'/>
      <backingStore type='file'>
        <format type='raw'/>
        <source file='/t/base'/>
      <backingStore/>
      </backingStore>
      </backingStore>
      <target dev='vdb' bus='virtio'/>
      <serial>5f1d3e0a9f5c4f43-1</serial>
    </disk>";
    assert_eq!(super::disk(spec().id, &disk).unwrap(), words.trim_start_matches('\n'));
    let spec = DomainSpec { disks: vec![disk], ..spec() };
    assert_eq!(write(&spec, false).unwrap(), document("qemu", "maximum", words, "", ""));
}

#[test]
fn overlays_and_mirrors_are_named_and_so_is_what_stays() {
    let one = |order, file| disk(order, file, Format::Qcow2, CacheMode::None);
    let targets = ["vda", "vdb", "vdc", "hdc"].map(str::to_owned);
    let document = "<domainsnapshot>
  <disks>
    <disk name='vdc' snapshot='external' type='file'>
      <driver type='qcow2'/>
      <source file='/s/c&amp;d'/>
    </disk>
    <disk name='vda' snapshot='external' type='file'>
      <driver type='qcow2'/>
      <source file='/s/a'/>
    </disk>
    <disk name='vdb' snapshot='no'/>
    <disk name='hdc' snapshot='no'/>
  </disks>
</domainsnapshot>";
    assert_eq!(overlays(&[one(2, "/s/c&d"), one(0, "/s/a")], &targets).unwrap(), document);

    let to = Layer { source: VolumeSource::File(PathBuf::from("/t/<a>")), format: Format::Raw };
    let document = "<disk type='file'>
  <driver type='raw'/>
  <source file='/t/&lt;a&gt;'/>
  <backingStore/>
</disk>";
    assert_eq!(mirror(&to).unwrap(), document);
}

#[test]
fn images_are_read_from_the_document_of_a_running_domain() {
    let disks = "<disk type='file' device='disk'>
            <driver name='qemu' type='qcow2' cache='none'/><source file='/s/a&amp;b' index='2'/>
            <backingStore type='file' index='3'><format type='qcow2'/><source file='/s/b'/>
                <backingStore type='file' index='4'><format type='raw'/><source file='/s/c'/>
                    <backingStore/></backingStore></backingStore>
            <mirror type='file' job='copy' ready='yes'><format type='raw'/><source file='/t/m'><seclabel/></source>
                <backingStore type='file'><format type='raw'/><source file='/t/n'/></backingStore></mirror>
            <target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>
        <disk type='file' device='cdrom'><driver name='qemu'/><target dev='hdc' bus='ide'/></disk>
        <disk type='file'><mirror type='file' job='active-commit'><source file='/t/m'/></mirror>
            <target dev='vdb'/><driver type='raw'/><source file='/s/d'/></disk>
        <disk type='file'><driver type='vmdk'/><source file='/s/e'/><target dev='vdc'/></disk>
        <disk type='network'><driver type='raw'/><source name='/s/e'/><target dev='vdd'/></disk>";
    let document = |id: &str, disks: &str| {
        let metadata = "<metadata><devices><disk><target dev='vdz'/></disk></devices></metadata>";
        format!("<domain type='qemu'{id}>{metadata}<devices>{disks}</devices></domain>")
    };
    let found = images(&document(" id='1'", disks)).unwrap().unwrap();
    assert_eq!(found.targets(), ["vda", "hdc", "vdb", "vdc", "vdd"]);

    let image = |file: &str, format| Layer { source: VolumeSource::File(PathBuf::from(file)), format };
    let first = found.disk(0).unwrap();
    let chain = [image("/s/a&b", Format::Qcow2), image("/s/b", Format::Qcow2), image("/s/c", Format::Raw)];
    assert_eq!(first.chain, chain);
    let mirror = first.mirror.unwrap();
    assert_eq!((mirror.file.as_deref(), mirror.ready.as_deref()), (Some("/t/m"), Some("yes")));
    let second = found.disk(1).unwrap();
    assert_eq!((second.chain, second.mirror.unwrap().ready), (vec![image("/s/d", Format::Raw)], None));
    for order in [2, 3, 4] {
        assert_eq!(found.disk(order).unwrap_err().kind().name(), "refused", "{order}");
    }
    assert_eq!(images(&document("", disks)).unwrap(), None, "it is off");
    assert_eq!(images(&document(" id='1'", "")).unwrap().unwrap().targets(), [""; 0]);
}

#[test]
fn a_title_is_one_line_of_anything() {
    for (name, shown) in [
        ("plain", "plain"),
        ("웹 서버 — שרת 🖥\u{fe0f} e\u{301} 'a' & <b> \"c\"", "웹 서버 — שרת 🖥\u{fe0f} e\u{301} 'a' & <b> \"c\""),
        ("a\r\nb\tc\0d\u{1b}e\u{85}f\u{2028}g\u{ffff}", "abcdefg\u{ffff}"),
        ("\n", ""),
    ] {
        assert_eq!(title(name), shown);
    }
    let mut spec = spec();
    spec.title = "a\u{ffff}b".to_owned();
    assert!(write(&spec, false).unwrap().contains("<title>ab</title>"));
}

/// The values of an attribute, in the order of the document, as a reader of XML sees them.
fn values(document: &str, element: &str, attribute: &str) -> Vec<String> {
    let mut reader = Reader::from_str(document);
    let mut found = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) | Event::Empty(tag) if tag.name().as_ref() == element => {
                if let Some(value) = tag.try_get_attribute(attribute).unwrap() {
                    found.push(value.normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap().into_owned());
                }
            }
            Event::Eof => return found,
            _ => {}
        }
    }
}

#[test]
fn every_text_reads_back_as_it_was() {
    let nasty = "/s/a'b\"c<d>&e]]>&amp; ü.qcow2";
    let mut spec = spec();
    spec.disks = vec![disk(0, nasty, Format::Qcow2, CacheMode::None)];
    let link = NicLink::Bridge("b'/><x y='&".to_owned());
    spec.nics = vec![NicSpec { mac: "52:54:00:00:00:01".parse().unwrap(), link }];
    spec.vnc_password = Secret::new("'\"<&>".to_owned());
    let document = write(&spec, false).unwrap();
    assert_eq!(values(&document, "source", "file"), [nasty]);
    assert_eq!(values(&document, "source", "bridge"), ["b'/><x y='&"]);
    assert_eq!(values(&document, "graphics", "passwd"), ["'\"<&>"]);
    assert!(values(&document, "x", "y").is_empty());
}

#[test]
fn what_xml_or_vnc_cannot_say_is_refused() {
    for file in ["/s/a\nb", "/s/a\u{1}", "/s/a\0b", "/s/\u{ffff}"] {
        let mut spec = spec();
        spec.disks = vec![disk(0, file, Format::Raw, CacheMode::None)];
        assert_eq!(write(&spec, false).unwrap_err().kind().name(), "invalid", "{file:?}");
    }
    for (password, fits) in [("12345678", true), ("123456789", false), ("éééé", true), ("ééééé", false)] {
        let mut spec = spec();
        spec.vnc_password = Secret::new(password.to_owned());
        assert_eq!(write(&spec, false).is_ok(), fits, "{password}");
    }
}

#[test]
fn targets_go_on_after_z() {
    for (order, name) in [
        (0, "vda"),
        (1, "vdb"),
        (25, "vdz"),
        (26, "vdaa"),
        (27, "vdab"),
        (51, "vdaz"),
        (52, "vdba"),
        (701, "vdzz"),
        (702, "vdaaa"),
    ] {
        assert_eq!(target(order), name, "{order}");
    }
    assert!(target(u32::MAX).len() > 3);
}

#[test]
fn a_screen_is_read_from_the_document_of_a_running_domain() {
    let at = |host: &str, port| Screen::At(VncEndpoint { host: host.to_owned(), port });
    for (devices, screen) in [
        ("", Screen::None),
        ("<graphics type='vnc' port='5901' autoport='yes' listen='127.0.0.1'/>", at("127.0.0.1", 5901)),
        ("<graphics type='vnc' port='5901'><listen type='address' address='::1'/></graphics>", at("127.0.0.1", 5901)),
        ("<graphics port=\"5902\" listen=\"::1\" type=\"vnc\"></graphics>", at("::1", 5902)),
        ("<graphics type='vnc' port='-1' autoport='yes'/>", Screen::NotYet),
        ("<graphics type='vnc' port='70000'/>", Screen::NotYet),
        ("<graphics type='vnc' socket='/s'/>", Screen::None),
        ("<graphics type='spice' port='5900'/>", Screen::None),
        ("<graphics type='spice' port='5900'/><graphics type='vnc' port='5903'/>", at("127.0.0.1", 5903)),
        ("<disk><graphics type='vnc' port='1'/></disk>", Screen::None),
    ] {
        let metadata = "<metadata><a><graphics type='vnc' port='1'/></a></metadata>";
        let document = format!("<domain type='qemu' id='1'>{metadata}<devices>{devices}</devices></domain>");
        assert_eq!(super::screen(&document).unwrap(), screen, "{devices}");
    }
    assert!(super::screen("<domain><devices></domain>").is_err());
}

#[test]
fn devices_are_read_from_the_document_of_a_running_domain() {
    let document = "<domain type='qemu' id='1'><metadata><disk><alias name='no'/></disk></metadata><devices>
        <emulator>/usr/bin/qemu-system-x86_64</emulator>
        <disk type='file' device='disk'><source file='/s/a&amp;b.raw' index='1'/>
            <backingStore type='file'><source file='/s/base'/></backingStore>
            <mirror type='file'><source file='/s/copy'/></mirror>
            <target dev='vdb' bus='virtio'/><alias name='virtio-disk1'/></disk>
        <disk type='file' device='cdrom'><target dev='hdc' bus='ide' tray='open'/><alias name='ide0-1-0'/></disk>
        <interface type='user'><mac address='52:54:00:00:00:01'/><target dev='vnet0'/><alias name='net0'/></interface>
        </devices></domain>";
    let found = devices(document).unwrap();
    let aliases = |is: &dyn Fn(&Device) -> bool| -> Vec<&str> {
        found.iter().filter(|device| is(device)).map(|device| device.alias.as_str()).collect()
    };
    assert_eq!(aliases(&|device| device.is_disk(1)), ["virtio-disk1"]);
    assert_eq!(aliases(&|device| device.file.as_deref() == Some("/s/a&b.raw")), ["virtio-disk1"]);
    assert_eq!(aliases(&|device| device.is_disk(0)), [""; 0]);
    assert_eq!(aliases(&Device::is_drive), ["ide0-1-0"]);
    assert_eq!(aliases(&|device| device.is_open), ["ide0-1-0"]);
    assert_eq!(aliases(&|device| device.is_nic("52:54:00:00:00:01".parse().unwrap())), ["net0"]);
    assert_eq!(aliases(&|device| device.is_nic("52:54:00:00:00:02".parse().unwrap())), [""; 0]);
}
