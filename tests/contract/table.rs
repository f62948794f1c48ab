//! The contract's 50 rows, written down by hand from the manual, against what is routed, listed and documented.

use std::collections::{BTreeMap, BTreeSet};

use pengx::dialects::pengx::resources::RESOURCES;

use super::file;

pub(super) struct Row {
    pub(super) number: u8,
    /// `METHOD /uri/`: as the manual means it, then its misprints and aliases.
    pub(super) endpoints: &'static [&'static str],
    pub(super) served: bool,
}

const fn served(number: u8, endpoints: &'static [&'static str]) -> Row {
    Row { number, endpoints, served: true }
}

const fn later(number: u8, endpoints: &'static [&'static str]) -> Row {
    Row { number, endpoints, served: false }
}

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    served(1, &["GET /pms/all/"]),
    served(2, &["GET /pms/"]),
    served(3, &["GET /pms/:pm/", "GET /pms:pm/"]),
    served(4, &["POST /pms/update-authorized-keys/", "PUT /pms/update-authorized-keys/"]),
    served(5, &["GET /pmpperf/"]),
    served(6, &["POST /storlinks/create/", "POST /storlinks/"]),
    served(7, &["DELETE /storlinks/:id/"]),
    served(8, &["GET /storlinks/"]),
    served(9, &["PUT /storlinks/:id/"]),
    served(10, &["GET /storlinks/all/"]),
    served(11, &["POST /templates/add/"]),
    served(12, &["POST /templates/create/vms/:vm/"]),
    served(13, &["DELETE /templates/:gvm/", "DELETE /template/:gvm/"]),
    served(14, &["GET /templates/:gvm/disks/"]),
    served(15, &["GET /templates/"]),
    served(16, &["PUT /templates/:gvm/", "PUT /template/:gvm/"]),
    served(17, &["POST /templates/add_new/"]),
    served(18, &["GET /templates/:gvm/", "GET /template/:gvm/"]),
    served(19, &["POST /vms/:vm/copy/"]),
    served(20, &["POST /vms/"]),
    served(21, &["DELETE /vms/:vm/"]),
    served(22, &["GET /vms/"]),
    served(23, &["GET /vms/:vm/"]),
    served(24, &["POST /vms/:vm/smigrate/"]),
    served(25, &["PUT /vms/:vm/update/", "POST /vms/:vm/resize/", "POST /vms/:vm/update/", "PUT /vms/:vm/resize/"]),
    served(26, &["PUT /vms/:vm/edit/"]),
    later(27, &["POST /vms/:vm/migrate/"]),
    served(28, &["POST /vms/:vm/poweroff/"]),
    served(29, &["POST /vms/:vm/reboot/"]),
    served(30, &["POST /vms/:vm/reset/"]),
    served(31, &["POST /vms/:vm/resume/"]),
    served(32, &["POST /vms/:vm/shutdown/"]),
    served(33, &["POST /vms/:vm/start/"]),
    served(34, &["POST /vms/:vm/start/snapshots/:snap/"]),
    served(35, &["POST /vms/:vm/suspend/"]),
    served(36, &["POST /vms/:vm/snapshots/"]),
    served(37, &["DELETE /vms/:vm/snapshots/:snap/"]),
    served(38, &["GET /vms/:vm/snapshots/"]),
    served(39, &["POST /vms/:vm/snapshots/:snap/"]),
    served(40, &["POST /vms/:vm/backups/"]),
    served(41, &["DELETE /vms/:vm/backups/:bak/"]),
    served(42, &["GET /vms/:vm/backups/"]),
    served(43, &["POST /vms/:vm/backups/:bak/"]),
    served(44, &["POST /vms/:vm/disks/"]),
    served(45, &["DELETE /vms/:vm/disks/:disk/"]),
    served(46, &[
        "GET /vms/:vm/disks/",
        "GET /vms/:vm/disks/snapshots/:snap/",
        "GET /vms/:vm/disks/backups/:bak/",
        "GET /vms/:vm/disks/snapshots:snap/",
        "GET /vms/:vm/disks/backups:bak/",
    ]),
    served(47, &["POST /vms/:vm/interfaces/"]),
    served(48, &["DELETE /vms/:vm/interface/:nic/", "DELETE /vms/:vm/interfaces/:nic/"]),
    served(49, &["GET /vms/:vm/interfaces/"]),
    served(50, &["PUT /vms/:vm/interface/:nic/update/", "PUT /vms/:vm/interfaces/:nic/update/"]),
];

/// What pengx adds to the manual, with the row that it is listed under.
const CHOICES: &[(&str, Option<u8>)] = &[
    ("GET /tasks/", None),
    ("GET /tasks/:task/", None),
    ("DELETE /tasks/:task/", None),
    ("GET /storlinks/:id/isos/", None),
    ("GET /storlinks/:id/volumes/", None),
    ("DELETE /storlinks/:id/volumes/:name/", None),
    ("POST /templates/:gvm/start/", None),
    ("POST /templates/:gvm/shutdown/", None),
    ("POST /templates/:gvm/poweroff/", None),
    ("GET /schema/", None),
    ("GET /backups/", Some(42)),
    ("POST /vms/:vm/backups/:bak/verify/", None),
    ("POST /vms/:vm/backups/:bak/prove/", None),
    ("GET /vms/:vm/console/", None),
    ("POST /vms/:vm/console/", None),
];

/// Every endpoint of the hand-written table with its row.
fn expected() -> BTreeMap<String, Option<u8>> {
    let rows = ROWS.iter().flat_map(|row| row.endpoints.iter().map(|e| (*e, Some(row.number))));
    rows.chain(CHOICES.iter().copied()).map(|(e, row)| (e.to_owned(), row)).collect()
}

/// The methods of every URI, in the order of `Allow`.
pub(super) fn methods() -> BTreeMap<String, Vec<&'static str>> {
    let all = expected();
    let mut methods: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for method in ["GET", "POST", "PUT", "DELETE"] {
        for endpoint in all.keys().filter_map(|e| e.strip_prefix(method)) {
            methods.entry(endpoint.trim_start().to_owned()).or_default().push(method);
        }
    }
    methods
}

/// A URI that matches the pattern and names nothing that there is.
pub(super) fn uri(pattern: &str) -> String {
    let mut uri = pattern.replace(":id", "4711").replace(":nic", "4711").replace(":name", "a.qcow2");
    for name in [":vm", ":pm", ":gvm", ":snap", ":bak", ":disk", ":task"] {
        uri = uri.replace(name, super::NOBODY);
    }
    uri
}

#[test]
fn the_table_of_this_test_has_all_fifty_rows_once() {
    let numbers: Vec<u8> = ROWS.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<u8>>());
    let endpoints = ROWS.iter().map(|row| row.endpoints.len()).sum::<usize>() + CHOICES.len();
    assert_eq!(expected().len(), endpoints, "an endpoint stands twice");
}

#[test]
fn what_is_routed_is_the_contract_and_the_named_choices() {
    let mut routed = BTreeMap::new();
    for resource in RESOURCES {
        for endpoint in resource.endpoints {
            routed.insert(format!("{} {}", endpoint.method.word(), resource.pattern), endpoint.row);
        }
    }
    let expected = expected();
    for (endpoint, row) in &expected {
        assert_eq!(routed.get(endpoint), Some(row), "{endpoint} of the contract");
    }
    for (endpoint, row) in &routed {
        assert_eq!(expected.get(endpoint), Some(row), "{endpoint} of the resource table");
    }
}

#[test]
fn the_program_lists_the_contract() {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_pengx")).arg("routes").output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    let mut listed = BTreeMap::new();
    let mut last = 0;
    for line in text.lines() {
        let [method, uri, row] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let row = if row == "-" { None } else { Some(row.parse::<u8>().unwrap()) };
        assert!(row.unwrap_or(u8::MAX) >= last, "not in the order of the contract: {line:?}");
        last = row.unwrap_or(u8::MAX);
        assert_eq!(listed.insert(format!("{method} {uri}"), row), None, "listed twice: {line:?}");
    }
    assert_eq!(listed, expected());
}

#[test]
fn the_page_on_compatibility_names_the_same_rows() {
    let page = file("../docs/compatibility.md");
    let mut lines = page.lines().skip_while(|line| *line != "| served | answer 501 so far |").skip(2);
    let line = lines.next().expect("the page has no table of rows");
    let cells: Vec<BTreeSet<u8>> = line
        .trim_matches('|')
        .split('|')
        .map(|cell| cell.split(',').map(|number| number.trim().parse().unwrap()).collect())
        .collect();
    let these = |served| ROWS.iter().filter(|row| row.served == served).map(|row| row.number).collect::<BTreeSet<_>>();
    assert_eq!(cells, [these(true), these(false)]);
}
