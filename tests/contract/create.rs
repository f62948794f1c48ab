//! What a create makes: format, size and content of every disk, networks, defaults.

use std::path::Path;

use pengx::model::{Format, NicLink, VolumeSource};

use super::{Api, Stock, vm};
use crate::harness::app::{App, make_image};
use crate::harness::tool::qemu_img;

/// A template's image of 4 MiB under the name that the client gives it.
fn template(api: &Api, storlink: &str, format: &str) -> (String, std::path::PathBuf) {
    let disk = uuid::Uuid::from_u128(if format == "raw" { 0xa } else { 0xb });
    let path = api.app.site.store_dir().join(format!("{disk}.{format}"));
    make_image(&path, format.parse().unwrap(), 4);
    let body = format!(
        "<template><name>{format}</name><os>OTHER</os><os_arch>X86</os_arch><disk><storlink>{storlink}</storlink>\
         <uuid>{disk}</uuid><format>{format}</format></disk></template>"
    );
    assert_eq!(api.post("/templates/add/", &body).status, 201);
    (api.get("/templates/").ids("template").pop().unwrap(), path)
}

/// The files of a VM's disks as the hypervisor has them.
fn disks(app: &App, vm: &str) -> Vec<(std::path::PathBuf, Format)> {
    let definitions = app.site.fake.definitions();
    let definition = definitions.iter().find(|d| d.id.to_string() == vm).unwrap();
    let file = |source: &VolumeSource| match source {
        VolumeSource::File(path) => path.clone(),
    };
    assert!(definition.disks.iter().zip(0..).all(|(disk, order)| disk.order == order));
    definition.disks.iter().map(|disk| (file(&disk.source), disk.format)).collect()
}

/// What qemu-img says of an image when it is told nothing and when it is told the format.
fn is_image(path: &Path, format: Format, mib: u64) {
    let info = qemu_img(&["info", "--output=json", "-f", format.word(), path.to_str().unwrap()]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"].as_u64(), Some(mib << 20), "{info}");
    assert_eq!(info["format"], format.word(), "{info}");
    // Self-contained.
    assert!(info.get("backing-filename").is_none() && info.get("full-backing-filename").is_none(), "{info}");
    assert!(info["format-specific"]["data"].get("data-file").is_none(), "{info}");
    if format == Format::Qcow2 {
        qemu_img(&["check", "-q", "-f", "qcow2", path.to_str().unwrap()]);
    }
}

/// The same content; what one is longer by is zeros.
fn same(a: &Path, a_format: &str, b: &Path, b_format: Format) {
    qemu_img(&["compare", "-q", "-f", a_format, "-F", b_format.word(), a.to_str().unwrap(), b.to_str().unwrap()]);
}

#[test]
fn disks_have_the_format_size_and_content_that_were_asked_for() {
    let api = Api::new();
    let storlink = api.app.storlink().to_string();
    let zeros = api.app.site.dir.path().join("zeros");
    std::fs::File::create(&zeros).unwrap().set_len(1 << 20).unwrap();
    let stock = Stock { storlink: storlink.clone(), template: String::new() };
    let mut made = 0;
    for source in ["qcow2", "raw", "nothing"] {
        let from = (source != "nothing").then(|| template(&api, &storlink, source));
        for asked in ["", "qcow2", "raw"] {
            for (os, extra) in [(None, None), (Some(7), Some(3)), (Some(4), None)] {
                let os = if from.is_none() { Some(os.unwrap_or(5)) } else { os };
                let text = |mib: Option<u64>| mib.map_or(String::new(), |mib| mib.to_string());
                let name = format!("vm{made}");
                let body = vm(
                    &name,
                    &stock,
                    &format!(
                        "<template>{}</template><disk_format>{asked}</disk_format><os_disk_size>{}</os_disk_size>\
                         <extra_disk_size>{}</extra_disk_size>",
                        from.as_ref().map_or("", |(id, _)| id),
                        text(os),
                        text(extra)
                    ),
                );
                api.post("/vms/", &body).done(201, &format!("vm {name} is created"));
                let id = api.vm_id(&name);
                let expected: Format = match (asked, source) {
                    ("", "nothing") => Format::Qcow2,
                    ("", source) => source.parse().unwrap(),
                    (asked, _) => asked.parse().unwrap(),
                };
                let sizes: Vec<u64> = [Some(os.unwrap_or(4)), extra].into_iter().flatten().collect();
                let disks = disks(&api.app, &id);
                assert_eq!(disks.len(), sizes.len(), "{body}");
                for ((path, format), mib) in disks.iter().zip(&sizes) {
                    assert_eq!(*format, expected, "{body}");
                    is_image(path, *format, *mib);
                }
                match &from {
                    Some((_, image)) => same(image, source, &disks[0].0, expected),
                    None => same(&zeros, "raw", &disks[0].0, expected),
                }
                if let Some((path, format)) = disks.get(1) {
                    same(&zeros, "raw", path, *format);
                }
                let shown = api.get(&format!("/vms/{id}/"));
                assert_eq!(shown.element("disk_size"), sizes.iter().sum::<u64>().to_string());
                api.http.delete(&format!("/vms/{id}/")).empty_204();
                assert!(disks.iter().all(|(path, _)| !path.exists()));
                made += 1;
            }
        }
    }
    assert_eq!(made, 27);
    // Nothing but the two images of the templates.
    assert_eq!(std::fs::read_dir(api.app.site.store_dir()).unwrap().count(), 2);
    api.app.assert_at_rest();
}

#[test]
fn networks_are_numbers_or_bridges_and_are_echoed_by_the_clients_name() {
    let (api, stock) = Api::stocked();
    let user = |_: &str| NicLink::User;
    let bridge = |name: &str| NicLink::Bridge(name.to_owned());
    let mut macs = std::collections::BTreeSet::new();
    let cases: &[(&str, &[(&str, NicLink)])] = &[
        ("", &[]),
        ("<network></network>", &[]),
        ("<network>1</network>", &[("xenbr1", user("xenbr1"))]),
        ("<network><list-item>0</list-item></network>", &[("xenbr0", user("xenbr0"))]),
        // xenbr0 is mapped on this site, virbr0 is a bridge of the host.
        (
            "<network><list-item>virbr0</list-item><list-item>xenbr0</list-item></network>",
            &[("virbr0", bridge("virbr0")), ("xenbr0", user("xenbr0"))],
        ),
        (
            "<network><list-item>1</list-item><list-item>1</list-item><list-item>virbr0</list-item></network>",
            &[("xenbr1", user("xenbr1")), ("xenbr1", user("xenbr1")), ("virbr0", bridge("virbr0"))],
        ),
    ];
    for (n, (network, expected)) in cases.iter().enumerate() {
        let name = format!("net{n}");
        let body = vm(&name, &stock, &format!("<os_disk_size>1</os_disk_size>{network}"));
        api.post("/vms/", &body).done(201, &format!("vm {name} is created"));
        let id = api.vm_id(&name);
        let shown = api.get(&format!("/vms/{id}/"));
        let nics: Vec<&str> = shown.body.split("<nic>").skip(1).collect();
        assert_eq!(nics.len(), expected.len(), "{network}: {}", shown.body);
        let definitions = api.app.site.fake.definitions();
        let definition = definitions.iter().find(|d| d.id.to_string() == id).unwrap();
        assert_eq!(definition.nics.len(), expected.len());
        for (k, (nic, (switch, link))) in nics.iter().zip(*expected).enumerate() {
            assert!(nic.contains(&format!("<name>eth{k}</name>")), "{nic}");
            assert!(nic.contains(&format!("<network>{switch}</network>")), "{nic}");
            let plug = &definition.nics[k];
            assert_eq!(plug.link, *link);
            assert!(nic.contains(&format!("<mac>{}</mac>", plug.mac)), "{nic}");
            assert!(plug.mac.to_string().starts_with("00:16:3e:"), "{}", plug.mac);
            assert!(macs.insert(plug.mac.to_string()), "{} twice", plug.mac);
        }
    }
    api.app.assert_at_rest();
}

#[test]
fn maxmem_is_memory_unless_it_is_given_and_the_vm_gets_what_is_shown() {
    let (api, stock) = Api::stocked();
    for (name, maxmem, shown) in [("a", "", "64"), ("b", "<maxmem></maxmem>", "64"), ("c", "<maxmem>96</maxmem>", "96")]
    {
        let body = vm(name, &stock, &format!("<os_disk_size>1</os_disk_size>{maxmem}"));
        api.post("/vms/", &body).done(201, &format!("vm {name} is created"));
        let id = api.vm_id(name);
        assert_eq!(api.get(&format!("/vms/{id}/")).element("maxmem"), shown);
        let definitions = api.app.site.fake.definitions();
        let definition = definitions.iter().find(|d| d.id.to_string() == id).unwrap();
        assert_eq!((definition.memory.0, definition.max_memory.to_string()), (64, shown.to_owned()));
    }
    api.app.assert_at_rest();
}
