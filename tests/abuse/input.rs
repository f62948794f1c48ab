//! Bodies that cannot be used: every bad field is named at once, and no task is made of them.

use std::io::{Read, Write};

use super::Scene;
use crate::harness::http::{Answer, ask};
use crate::harness::wait::PATIENCE;

/// As [`Scene::refused`], and not even a task is recorded.
fn no_task(scene: &Scene, case: &str, status: u16, says: &[&str], call: impl FnOnce() -> Answer) -> String {
    let before = scene.tasks();
    let message = scene.refused(case, status, says, call);
    assert_eq!(scene.tasks(), before, "{case} made a task");
    message
}

#[test]
fn every_bad_field_is_named_in_one_answer() {
    let scene = Scene::new();
    for (uri, body, fields) in [
        ("/storlinks/create/", "<s/>", &["name", "link", "type", "level"][..]),
        (
            "/storlinks/create/",
            "<s><name><a/></name><link>x</link><type>USB</type><level>XX</level><shared>maybe</shared><desc><a/></desc></s>",
            &["name", "type", "level", "shared", "desc"],
        ),
        ("/storlinks/create/", "<s><name>a</name><link>x</link><type>NFS</type><level>BL</level></s>", &["level"]),
        (
            "/storlinks/create/",
            "<s><name>a</name><link>x</link><type>CEP</type><level>FL</level></s>",
            &["level", "link"],
        ),
        ("/templates/add/", "<t/>", &["name", "os", "os_arch", "disk.storlink", "disk.uuid", "disk.format"]),
        (
            "/templates/add/",
            "<t><name/><os>DOS</os><os_arch>ARM</os_arch><desc><a/></desc>\
             <disk><storlink>-1</storlink><uuid>7</uuid><format>vdi</format></disk></t>",
            &["name", "os", "os_arch", "desc", "disk.storlink", "disk.uuid", "disk.format"],
        ),
        ("/vms/", "<vm/>", &["name", "storlink", "cpu_core", "memory", "os_disk_size"]),
        (
            "/vms/",
            "<vm><name>&#7;</name><storlink>x</storlink><cpu_core>0</cpu_core><memory>-1</memory><maxmem>1.5</maxmem>\
             <template>7</template><os_disk_size>0</os_disk_size><extra_disk_size>many</extra_disk_size>\
             <disk_format>vmdk</disk_format><network>a b</network><desc><a/></desc></vm>",
            &[],
        ),
        (
            "/vms/",
            "<vm><name> </name><storlink>x</storlink><cpu_core>0</cpu_core><memory>-1</memory><maxmem>1.5</maxmem>\
             <template>7</template><os_disk_size>0</os_disk_size><extra_disk_size>many</extra_disk_size>\
             <disk_format>vmdk</disk_format><network>a b</network><desc><a/></desc></vm>",
            &[
                "name",
                "storlink",
                "cpu_core",
                "memory",
                "maxmem",
                "template",
                "os_disk_size",
                "extra_disk_size",
                "disk_format",
                "network",
                "desc",
            ],
        ),
    ] {
        let message = no_task(&scene, body, 400, &[], || scene.http.post(uri, body)).replace("&quot;", "'");
        for field in fields {
            let named = message.starts_with(&format!("{field}: ")) || message.contains(&format!("; {field}: "));
            assert!(named, "{field} is not named for {body}: {message}");
        }
        if !fields.is_empty() {
            assert_eq!(message.split("; ").count(), fields.len(), "{message}");
        }
    }
}

#[test]
fn numbers_beyond_all_bounds_are_told_their_bounds() {
    let scene = Scene::new();
    let huge = "9".repeat(400);
    for (field, values, says) in [
        ("cpu_core", &["0", "-1", "1025", huge.as_str()][..], "cpu_core: must be from 1 to 1024"),
        ("cpu_core", &["two", "1e3", "0x2", "1.5", "٣", "NaN", "1 2"], "cpu_core: must be a whole number"),
        ("memory", &["0", "-5", "16777217", "18446744073709551616"], "memory: must be from 1 to 16777216"),
        ("memory", &["64MB", "one"], "memory: must be a whole number"),
        ("maxmem", &["63", "1"], "memory: must be at most maxmem, "),
        ("os_disk_size", &["0", "-1", "1073741825"], "os_disk_size: must be from 1 to 1073741824"),
        ("extra_disk_size", &["0", "99999999999"], "extra_disk_size: must be from 1 to 1073741824"),
        ("storlink", &["-1", "0", "x", huge.as_str()], "storlink"),
        ("template", &["x", "1"], "template: must be a uuid"),
        ("disk_format", &["vmdk", "QCOW2", "raw,backing_file=/etc/passwd"], "disk_format: must be one of qcow2, raw"),
        ("network", &["-x", "..", "a/b", "sixteen_letters_", "브리지"], "network: "),
    ] {
        for value in values {
            let more = format!("<os_disk_size>4</os_disk_size><{field}>{value}</{field}>");
            let status = if field == "storlink" && *value == "0" { 404 } else { 400 };
            let storlink_0 = status == 404;
            let says = if storlink_0 { "there is no storlink 0" } else { says };
            scene.refused(&more, status, &[says], || scene.create_vm("web1", &more));
        }
    }
    let many = "<list-item>0</list-item>".repeat(33);
    no_task(&scene, "33 networks", 400, &["network: must have at most 32 items"], || {
        scene.create_vm("web1", &format!("<os_disk_size>4</os_disk_size><network>{many}</network>"))
    });
    // Sizes that a field allows and the storage does not.
    scene.refused("a petabyte", 400, &["MiB"], || scene.create_vm("web1", "<os_disk_size>1073741824</os_disk_size>"));
    scene.refused("256 cpus", 400, &["cpu_core: must be at most 255"], || {
        scene.create_vm("web1", "<os_disk_size>4</os_disk_size><cpu_core>256</cpu_core>")
    });
}

#[test]
fn what_a_body_names_and_is_not_there_is_404() {
    let scene = Scene::new();
    let nobody = "bed05d84-7c44-4720-9588-57cbd8ecef8c";
    scene.refused("storlink", 404, &["there is no storlink 99"], || {
        scene.create_vm("web1", "<os_disk_size>4</os_disk_size><storlink>99</storlink>")
    });
    scene.refused("template", 404, &[&format!("there is no template {nobody}")], || {
        scene.create_vm("web1", &format!("<template>{nobody}</template>"))
    });
    scene.refused("storlink of a template", 404, &["there is no storlink 99"], || {
        scene.http.post(
            "/templates/add/",
            &format!(
                "<t><name>t</name><os>OTHER</os><os_arch>X64</os_arch><disk><storlink>99</storlink><uuid>{nobody}</uuid>\
                 <format>raw</format></disk></t>"
            ),
        )
    });
    for method in ["start", "shutdown", "poweroff"] {
        no_task(&scene, method, 404, &[&format!("there is no vm {nobody}")], || {
            scene.http.post(&format!("/vms/{nobody}/{method}/"), "")
        });
    }
    no_task(&scene, "delete", 404, &["there is no vm"], || scene.http.delete(&format!("/vms/{nobody}/")));
    no_task(&scene, "cancel", 404, &["there is no task"], || scene.http.delete(&format!("/tasks/{nobody}/")));
}

#[test]
fn what_does_not_fit_is_told() {
    let scene = Scene::new();
    let (template, _) = scene.template("debian", pengx::model::Format::Qcow2);
    scene.refused("smaller than the template", 400, &["os_disk_size: must be at least 4 MiB"], || {
        scene.create_vm("web1", &format!("<template>{template}</template><os_disk_size>3</os_disk_size>"))
    });
    let told = scene.refused("unknown bridges", 400, &["network: bridge lan7 ", "network: bridge xenbr77 "], || {
        scene.create_vm(
            "web1",
            "<os_disk_size>4</os_disk_size><network><list-item>lan7</list-item><list-item>0</list-item>\
             <list-item>77</list-item></network>",
        )
    });
    assert!(told.contains("neither exists on this host nor is mapped") && !told.contains("xenbr0"), "{told}");
    // Together in one answer, although they are found on another floor.
    scene.refused("all of these", 400, &["os_disk_size: ", "network: ", "cpu_core: "], || {
        let more = "<os_disk_size>1</os_disk_size><network>lan7</network><cpu_core>300</cpu_core>";
        scene.create_vm("web1", &format!("<template>{template}</template>{more}"))
    });
}

#[test]
fn bodies_that_are_attacks_are_refused_before_anything_is_made_of_them() {
    let scene = Scene::new();
    let laughs: String = (1..20).map(|n| format!("<!ENTITY l{n} '{}'>", format!("&l{};", n - 1).repeat(10))).collect();
    let good = scene.vm_body("web1", "<os_disk_size>4</os_disk_size>");
    let deep = format!("<vm>{}{}</vm>", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let wide = format!("<vm>{}</vm>", "<a/>".repeat(20_000));
    let attributes: String = (0..100).map(|n| format!(" a{n}='x'")).collect();
    for (case, body) in [
        ("XXE", format!("<!DOCTYPE vm [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>{}", good.replace("web1", "&x;"))),
        ("an external DTD", format!("<!DOCTYPE vm SYSTEM 'http://127.0.0.1:1/x.dtd'>{good}")),
        ("a parameter entity", format!("<!DOCTYPE vm [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]>{good}")),
        ("billion laughs", format!("<!DOCTYPE vm [<!ENTITY l0 'ha'>{laughs}]>{}", good.replace("web1", "&l19;"))),
        ("an unknown entity", good.replace("web1", "&nbsp;")),
        ("cut off", good[..good.len() - 4].to_owned()),
        ("crossed", "<vm><name>a</vm></name>".to_owned()),
        ("two roots", format!("{good}{good}")),
        ("text after it", format!("{good}x")),
        ("no element", "<!-- -->".to_owned()),
        ("only text", "<vm>web1</vm>".to_owned()),
        ("a list", "<vm><list-item>1</list-item></vm>".to_owned()),
        ("too deep", deep),
        ("too wide", wide),
        ("many attributes", format!("<vm{attributes}/>")),
        ("an attribute twice", "<vm a='1' a='2'/>".to_owned()),
        ("NUL", good.replace("web1", "&#0;")),
        ("a control character", good.replace("web1", "a\u{1}")),
    ] {
        no_task(&scene, case, 400, &["the body cannot be read"], || scene.http.post("/vms/", &body));
    }
}

fn post_bytes(scene: &Scene, content_type: &str, body: &[u8]) -> Answer {
    let mut stream = std::net::TcpStream::connect(scene.http.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /vms/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        scene.http.address,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), headers: Vec::new(), body: body.to_owned() }
}

#[test]
fn bodies_of_the_wrong_type_or_size_are_refused() {
    let scene = Scene::new();
    let address = scene.http.address;
    let good = scene.vm_body("web1", "<os_disk_size>4</os_disk_size>");
    for content_type in ["application/json", "text/plain", "image/svg", "nonsense"] {
        no_task(&scene, content_type, 415, &["send application/xml"], || {
            ask(address, "POST", "/vms/", &[("Content-Type", content_type)], &good)
        });
    }
    no_task(&scene, "no type, no XML", 415, &["send application/xml"], || ask(address, "POST", "/vms/", &[], "name=a"));
    // A name of a charset that is not known does no harm, unless the bytes need it.
    let korean = b"<?xml version='1.0' encoding='x-klingon'?><vm><name>\xb0\xa1</name></vm>";
    for content_type in ["application/xml", "application/xml; charset=utf-8", "application/xml; charset=x-klingon"] {
        no_task(&scene, content_type, 400, &["its bytes are not valid UTF-8"], || {
            post_bytes(&scene, content_type, korean)
        });
    }
    no_task(&scene, "half a character", 400, &["not valid UTF-16LE"], || {
        post_bytes(&scene, "application/xml; charset=utf-16le", b"<\0a\0/\0>\0\0\xd8")
    });
    let limit = pengx::dialects::pengx::Settings::default().body_limit;
    let large = format!("{good}{}", " ".repeat(limit));
    no_task(&scene, "too large", 413, &["larger than"], || scene.http.post("/vms/", &large));
    // Text that is XML here and nothing but text everywhere below.
    let made = scene.create_vm("$(reboot)`id`;'\"--\\", "<os_disk_size>4</os_disk_size><desc>' OR 1=1 --</desc>");
    assert_eq!(made.status, 201, "{made:?}");
    scene.app.assert_at_rest();
}
