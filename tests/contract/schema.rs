//! The grammar that `pengx schema` writes, asked of a validator that is not ours: what is sent obeys it, what clients send
//! by the manual obeys it, and it names the fields that are read.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pengx::dialects::pengx::Settings;
use pengx::dialects::pengx::resources::RESOURCES;
use pengx::dialects::pengx::schema::{self, Field, Kind, Request};

use super::table::uri;
use super::{Api, file};

/// The manual's, as printed: not well-formed, and refused.
const MISPRINTED: &[&str] = &["vm-edit.xml"];

/// Grammars and documents in a directory of the test's own.
struct Validator(tempfile::TempDir);

impl Validator {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The documents that are not valid, with the validator's words.
    fn wrong(&self, start: Option<&str>, documents: &[(String, String)]) -> Vec<String> {
        let grammar = self.0.path().join("grammar.rng");
        std::fs::write(&grammar, schema::write(&Settings::default(), start).unwrap()).unwrap();
        let mut wrong = Vec::new();
        for (name, text) in documents {
            let path = self.0.path().join("document.xml");
            std::fs::write(&path, text).unwrap();
            let done = xmllint(&grammar, &path);
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            match done.status.code() {
                Some(0) => {}
                // 3 and 4: not valid.
                Some(3 | 4) => wrong.push(format!("{name}: {said}")),
                _ => panic!("the grammar itself or the document is broken: {name}: {said}"),
            }
        }
        wrong
    }
}

fn xmllint(grammar: &Path, document: &Path) -> Output {
    let mut command = Command::new("xmllint");
    command.args(["--nonet", "--noout", "--relaxng"]).arg(grammar).arg(document);
    command.output().expect("xmllint of libxml2-utils, which tests/lab/install.sh installs")
}

/// The files of a directory of the tests, with what stands in for changing values made a value again.
fn files(dir: &str) -> Vec<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(dir);
    let mut names: Vec<String> =
        std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".xml"));
    names.sort();
    let text = |name: &str| {
        let text = file(&format!("{dir}/{name}"));
        ["SIZE", "FREE", "COUNT"].iter().fold(text, |text, word| text.replace(&format!(">{word}"), ">1"))
    };
    names.into_iter().map(|name| (name.clone(), text(&name).replace("    INTERFACES\n", ""))).collect()
}

fn requests() -> Vec<(&'static str, &'static str, &'static Request)> {
    let endpoints = RESOURCES.iter().flat_map(|r| r.endpoints.iter().map(move |e| (r.pattern, e)));
    endpoints.filter_map(|(pattern, e)| Some((e.method.word(), pattern, e.takes?))).collect()
}

#[test]
fn every_golden_answer_obeys_the_grammar() {
    let golden = files("golden/pengx");
    assert!(golden.len() > 25);
    let wrong = Validator::new().wrong(None, &golden);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_body_obeys_the_grammar_of_its_request() {
    let validator = Validator::new();
    let mut seen = 0;
    for (name, text) in files("contract/bodies") {
        if MISPRINTED.contains(&name.as_str()) {
            continue;
        }
        let stem = name.trim_end_matches(".xml");
        let named = requests().into_iter().map(|(_, _, request)| request.name).filter(|r| stem.starts_with(r));
        let request = named.max_by_key(|r| r.len()).unwrap_or_else(|| panic!("{name} begins with no request's name"));
        let filled = text.replace("$storlink_id", "1").replace("$storlink", "1").replace("$desc", "text");
        let filled = filled.replace("$template_uuid", super::NOBODY).replace("$vm_uuid", super::NOBODY);
        let wrong = validator.wrong(Some(request), &[(name, filled)]);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        seen += 1;
    }
    assert!(seen >= 3);
}

#[test]
fn documents_of_another_shape_do_not() {
    let validator = Validator::new();
    let vm = file("golden/pengx/vm.xml");
    let pairs = |all: &[(&str, String)]| all.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect::<Vec<_>>();
    let answers = pairs(&[
        ("no name", vm.replace("  <name>test_vm</name>\n", "")),
        ("an unknown element", vm.replace("<nics>", "<extra/><nics>")),
        ("another order", vm.replace("<cpu_core>1</cpu_core>", "").replace("<nics>", "<cpu_core>1</cpu_core><nics>")),
        ("a word for a number", vm.replace("<memory>512<", "<memory>much<")),
        ("an unknown state", vm.replace("SHUTDOWN", "ASLEEP")),
        ("no id", vm.replace("<vm id='", "<vm no='")),
        ("a result that is none", "<root><result>perhaps</result><message>m</message></root>".to_owned()),
    ]);
    assert_eq!(validator.wrong(None, &answers).len(), answers.len());
    let body =
        file("contract/bodies/vm-create.xml").replace("$template_uuid", super::NOBODY).replace("$storlink_id", "1");
    let requests = pairs(&[
        ("no name", body.replace("<name>test_vm</name>", "")),
        ("a name of nothing", body.replace("<name>test_vm</name>", "<name> </name>")),
        ("a bad uuid", body.replace(super::NOBODY, "7")),
        ("no such format", body.replace("qcow2", "vdi")),
    ]);
    assert_eq!(validator.wrong(Some("vm-create"), &requests).len(), requests.len());
    // Any root, any order, unknown elements, and of a repeated one the last.
    let odd = "<x a='b'><y><z/></y>text<storlink>1</storlink><memory>5</memory><cpu_core>1</cpu_core><name>a</name><name>b</name></x>";
    assert_eq!(validator.wrong(Some("vm-create"), &pairs(&[("odd", odd.to_owned())])), Vec::<String>::new());
}

#[test]
fn it_is_served_and_printed() {
    let api = Api::new();
    let whole = api.get("/schema/");
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("application/xml; charset=utf-8")));
    let done = Command::new(env!("CARGO_BIN_EXE_pengx")).arg("schema").output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), whole.body);
    for resource in RESOURCES {
        for endpoint in resource.endpoints {
            let line = format!("<!-- {} {}: ", endpoint.method.word(), resource.pattern);
            assert!(whole.body.contains(&line), "{line}");
        }
    }
    let one = api.get("/schema/?start=vm-create");
    let done = Command::new(env!("CARGO_BIN_EXE_pengx")).args(["schema", "vm-create"]).output().unwrap();
    assert_eq!((one.status, one.body), (200, String::from_utf8(done.stdout).unwrap()));
    api.get("/schema/?start=nope").refused(404, "there is no schema nope");
    let done = Command::new(env!("CARGO_BIN_EXE_pengx")).args(["schema", "nope"]).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
}

/// Elements where text belongs, in every field, so that an answer names each field that is read.
fn nested(fields: &[Field], path: &str, names: &mut Vec<String>) -> String {
    let mut body = String::new();
    for field in fields {
        let name = field.name;
        let inner = match field.kind {
            Kind::Nested(inner) => nested(inner, &format!("{path}{name}."), names),
            Kind::List => {
                names.push(format!("{path}{name}"));
                "<list-item><x>1</x></list-item>".to_owned()
            }
            _ => {
                names.push(format!("{path}{name}"));
                "<x>1</x>".to_owned()
            }
        };
        body.push_str(&format!("<{name}>{inner}</{name}>"));
    }
    body
}

#[test]
fn each_field_of_the_grammar_is_read_where_it_says() {
    let api = Api::new();
    for (method, pattern, request) in requests() {
        let mut names = Vec::new();
        let body = format!("<x>{}</x>", nested(request.fields, "", &mut names));
        let answer = api.http.send(method, &uri(pattern), &body);
        assert_eq!(answer.status, 400, "{method} {pattern}: {answer:?}");
        let message = answer.message();
        for name in names {
            assert!(
                message.contains(&format!("{name}: must be text, not elements")),
                "{method} {pattern} {name}: {message}"
            );
        }
    }
    api.app.assert_at_rest();
}
