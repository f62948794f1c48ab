//! Text of the world: what people write in any script comes back as they wrote it, over HTTP and on both databases; what
//! XML cannot say is refused, and the field is named.

use pengx::model::Format;

use crate::harness::app::{App, Site, make_image};
use crate::harness::http::{Answer, Served};
use crate::harness::postgres;

/// Hangul (composed, and as jamo), Arabic and Hebrew with marks of direction, combining marks, emoji of several code
/// points, characters beyond the first plane, every kind of blank that is no white space of XML, and what XML escapes.
const WORLD: &[&str] = &[
    "가상 머신 한글",
    "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}",
    "خادم \u{202e}עברית\u{202c} \u{200f}",
    "e\u{301}\u{327} Z\u{351}\u{36b}\u{343}",
    "🐧👩‍👩‍👧‍👦🇰🇷 \u{1f3f4}\u{e0067}\u{e0062}\u{e007f}",
    "𠮷野家 𝔘𝔫𝔦 \u{10ffff}\u{10000}",
    "a\u{2028}b\u{2029}c\u{feff}d\u{200b}e\u{fffd}",
    "<b> & \"quotes\" 'and' ]]> -- %s {{ x }} $(rm) \\ ;",
];

/// The fields of an element of a document, unescaped.
fn field(answer: &Answer, name: &str) -> String {
    let text = answer.element(name).replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&#39;", "'").replace("&amp;", "&")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Every field of text that a client can write, by way of a site on this database.
fn round_trip(site: Site) {
    let app = site.start();
    let http = Served::new(&app.core);
    let send = |method: &str, uri: &str, xml: &str, status: u16| {
        let answer = http.send(method, uri, xml);
        assert_eq!(answer.status, status, "{method} {uri} {xml}: {answer:?}");
        answer
    };
    for (n, text) in WORLD.iter().enumerate() {
        let (text, xml) = (text.trim(), escaped(text));
        let named = format!("<name>{xml}</name><desc>{xml}</desc>");
        let link = app.site.dir.path().join(format!("store {n} {}", text.replace(['/', '\u{10ffff}'], "")));
        std::fs::create_dir(&link).unwrap();
        // A path with a code point that is kept for nobody is told at once, not by a tool later.
        let at = format!(
            "<s>{named}<link>{}\u{10ffff}</link><type>LO</type><level>FL</level></s>",
            escaped(link.to_str().unwrap())
        );
        assert!(
            send("POST", "/storlinks/", &at, 400).message().starts_with("link: must not have the character U+10FFFF")
        );
        let body =
            format!("<s>{named}<link>{}</link><type>LO</type><level>FL</level></s>", escaped(link.to_str().unwrap()));
        send("POST", "/storlinks/", &body, 201);
        let storlinks = http.get("/storlinks/");
        let storlink = storlinks.ids("storlink").last().unwrap().clone();
        let last = Answer {
            body: format!("<storlink id{}", storlinks.body.rsplit("<storlink id").next().unwrap()),
            ..storlinks
        };
        for name in ["name", "desc"] {
            assert_eq!(field(&last, name), text);
        }
        assert_eq!(field(&last, "link"), link.to_str().unwrap());

        let disk = uuid::Uuid::from_u128(n as u128 + 1);
        make_image(&link.join(format!("{disk}.qcow2")), Format::Qcow2, 4);
        let body = format!(
            "<t>{named}<os>OTHER</os><os_arch>X64</os_arch><disk><storlink>{storlink}</storlink><uuid>{disk}</uuid><format>qcow2</format></disk></t>"
        );
        send("POST", "/templates/add/", &body, 201);
        let templates = http.get("/templates/");
        let template = templates.ids("template").last().unwrap().clone();
        let one = http.get(&format!("/templates/{template}/"));
        assert_eq!((field(&one, "name").as_str(), field(&one, "desc").as_str()), (text, text));

        let body = format!(
            "<vm>{named}<storlink>{storlink}</storlink><template>{template}</template><cpu_core>1</cpu_core><memory>64</memory></vm>"
        );
        send("POST", "/vms/", &body, 201);
        let vm = http.get("/vms/").ids("vm").last().unwrap().clone();
        assert_eq!(field(&http.get(&format!("/vms/{vm}/")), "name"), text);
        // By a form as well, and the other way round: the name is taken.
        let form = format!("name={}", percent(text));
        let answer = http.ask(
            "PUT",
            &format!("/vms/{vm}/edit/"),
            &[("Content-Type", "application/x-www-form-urlencoded")],
            &form,
        );
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(field(&http.get(&format!("/vms/{vm}/")), "name"), text);
        let again = send("POST", "/vms/", &body, 400);
        assert_eq!(field(&again, "message"), format!("a vm named {text} exists already"));
        let disk = send(
            "POST",
            &format!("/vms/{vm}/disks/"),
            &format!("<d><size>1</size><storlink>{storlink}</storlink><desc>{xml}</desc></d>"),
            201,
        );
        assert_eq!(field(&disk, "desc"), text);
        assert!(app.site.fake.definitions().iter().any(|spec| spec.title == text), "{text}");
    }
    app.assert_at_rest();
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[test]
fn every_script_comes_back_as_it_was_written_on_sqlite() {
    round_trip(Site::new());
}

#[test]
fn every_script_comes_back_as_it_was_written_on_postgres() {
    let mut site = Site::new();
    site.database_url = postgres::database();
    round_trip(site);
}

#[test]
fn characters_that_xml_cannot_say_are_refused_with_their_field() {
    let app = App::new();
    let http = Served::new(&app.core);
    let rest = "<storlink>1</storlink><cpu_core>1</cpu_core><memory>64</memory><os_disk_size>1</os_disk_size>";
    for (code, c) in [("0000", '\0'), ("0001", '\u{1}'), ("001F", '\u{1f}'), ("FFFE", '\u{fffe}'), ("FFFF", '\u{ffff}')]
    {
        for name in ["name", "desc"] {
            let said = format!("{name}: must not have the character U+{code}, which XML cannot say");
            // As it is, as a reference, and in a form.
            let other = if name == "name" { "" } else { "<name>x</name>" };
            for body in [
                format!("<vm>{other}<{name}>a{c}b</{name}>{rest}</vm>"),
                format!("<vm>{other}<{name}>a&#x{code};b</{name}>{rest}</vm>"),
            ] {
                let answer = http.post("/vms/", &body);
                assert_eq!(answer.status, 400);
                assert!(answer.message().contains(&said), "{answer:?}");
            }
            let form = format!("{name}=a{}b&storlink=1&cpu_core=1&memory=64&os_disk_size=1", percent(&c.to_string()));
            let kind = [("Content-Type", "application/x-www-form-urlencoded")];
            let answer = http.ask("POST", "/vms/", &kind, &form);
            assert_eq!(answer.status, 400);
            assert!(answer.message().contains(&said), "{answer:?}");
        }
    }
    // Nested fields have their path, and a place that is no field is told all the same.
    let answer = http.post("/templates/add/", "<t><disk><format>\u{1}</format></disk></t>");
    assert!(answer.message().contains("disk.format: must not have the character U+0001"), "{answer:?}");
    let answer = http.post("/vms/", "<vm><!-- \u{1} --></vm>");
    assert!(answer.status == 400 && answer.message().contains("U+0001"), "{answer:?}");
    app.assert_at_rest();
}
