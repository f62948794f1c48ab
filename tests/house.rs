//! The house keeps its shape: who may know whom, no cycles, files of one noun or one verb, no backend named above its floor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with all that it may name. What is not listed is not allowed.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("error", &["model"]),
    ("model", &["error"]),
    ("escape", &["model"]),
    ("config", &["error", "model"]),
    ("exec", &["error", "model"]),
    ("patience", &["error"]),
    ("host", &["error", "model", "patience"]),
    ("store", &["error", "model"]),
    ("hypervisor", &["error", "model", "exec", "patience"]),
    ("storage", &["error", "model", "exec", "patience"]),
    ("tasks", &["error", "model", "store"]),
    ("operations", &["error", "model", "store", "hypervisor", "storage", "host", "tasks"]),
    ("dialects", &["error", "escape", "model", "config", "operations"]),
    ("server", &["error", "model", "config", "dialects"]),
    (
        "serve",
        &[
            "cli",
            "config",
            "dialects",
            "error",
            "exec",
            "host",
            "hypervisor",
            "model",
            "operations",
            "server",
            "storage",
            "store",
            "tasks",
        ],
    ),
    ("terminal", &["error", "model"]),
    ("accounts", &["cli", "config", "error", "model", "operations", "store", "terminal"]),
    ("backups", &["cli", "config", "error", "exec", "host", "model", "operations", "storage", "store"]),
    ("check", &["config", "error", "operations", "serve"]),
    ("cli", &["config", "model"]),
    ("migration", &["cli", "config", "error", "hypervisor"]),
    ("main", &["accounts", "backups", "check", "cli", "config", "dialects", "error", "migration", "serve"]),
    ("lib", &[]),
];

/// `model` and `error` are one floor: units stand in error sentences, and errors come from parsing units.
const ONE_FLOOR: [&str; 2] = ["error", "model"];

/// In the place of a dialect, and none: what any of them may serve.
const SHARED: [&str; 1] = ["console"];

/// A file longer than this is more than one thing.
const ALARM: usize = 800;

#[test]
fn modules_know_only_what_is_below_them() {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        MAY_KNOW.iter().map(|(m, all)| (*m, all.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (module, edges) in edges() {
        let Some(may) = allowed.get(module.as_str()) else {
            wrong.push(format!("module {module} is not in the table of this test"));
            continue;
        };
        for (to, file) in edges {
            if to != module && !may.contains(to.as_str()) {
                wrong.push(format!("{} names crate::{to}; {module} may know {may:?}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn top_modules_have_no_cycles() {
    let graph: BTreeMap<String, BTreeSet<String>> = edges()
        .into_iter()
        .map(|(m, e)| (m, e.into_keys().filter(|to| !ONE_FLOOR.contains(&to.as_str())).collect()))
        .collect();
    for start in graph.keys() {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = graph[start].iter().filter(|to| *to != start).collect();
        while let Some(module) = next.pop() {
            assert_ne!(module, start, "{start} reaches itself through {reached:?}");
            if reached.insert(module) {
                next.extend(graph.get(module).into_iter().flatten().filter(|to| *to != module));
            }
        }
    }
}

#[test]
fn dialects_do_not_import_one_another() {
    let names: Vec<String> = fs::read_dir(root().join("src/dialects"))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().unwrap().is_dir())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    assert!(!names.is_empty());
    for file in sources() {
        for name in &names {
            if file.starts_with(root().join("src/dialects").join(name)) {
                for other in names.iter().filter(|other| *other != name && !SHARED.contains(&other.as_str())) {
                    let text = code(&file);
                    assert!(!text.contains(&format!("dialects::{other}")), "{} names dialect {other}", file.display());
                }
            }
        }
    }
}

#[test]
fn each_seam_has_one_owner() {
    for (word, owners) in [
        ("diesel::", &["src/store"][..]),
        ("warp::", &["src/dialects", "src/server"]),
        ("hyper::", &["src/server"]),
        ("hyper_util::", &["src/server"]),
        ("virt::", &["src/hypervisor/libvirt"]),
        ("virt_sys::", &["src/hypervisor/libvirt"]),
        ("unsafe", &["src/hypervisor/libvirt/ffi.rs"]),
        ("process::Command", &["src/exec.rs", "src/exec"]),
        // The last two are how the operator chooses it.
        ("\"xl\"", &["src/hypervisor/xl", "src/host", "src/hypervisor/connect.rs", "src/config.rs"]),
        // The fake moves data between real images, and neighbours never call one another.
        ("qemu-img", &["src/storage", "src/exec", "src/hypervisor/fake"]),
    ] {
        for file in sources() {
            if owners.iter().any(|owner| file.starts_with(root().join(owner))) {
                continue;
            }
            let text = code(&file);
            let found = text
                .match_indices(word)
                .find(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            assert!(found.is_none(), "{} has {word:?}, which belongs to {owners:?}", file.display());
        }
    }
}

/// What a dialect holds it got at the gate: it cannot make a core, nor a gate, nor accounts.
#[test]
fn only_the_start_makes_what_is_behind_the_gate() {
    for file in sources() {
        let inside = file.strip_prefix(root().join("src")).unwrap();
        if ["serve.rs", "accounts.rs"].iter().any(|start| inside == Path::new(start)) {
            continue;
        }
        for word in ["Core::start(", "Gate::new(", "Registry::new("] {
            assert!(!code(&file).contains(word), "{} has {word}", file.display());
        }
    }
}

#[test]
fn operations_name_no_backend() {
    for file in sources().into_iter().filter(|f| f.starts_with(root().join("src/operations"))) {
        let text = code(&file).to_lowercase();
        for word in ["libvirt", "qemu", "xl"] {
            let named = text.split(|c: char| !c.is_alphanumeric()).any(|w| w == word);
            assert!(!named, "{} names {word}", file.display());
        }
    }
}

#[test]
fn files_are_one_noun_or_one_verb() {
    for file in sources() {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= ALARM, "{} has {lines} lines, more than {ALARM}", file.display());
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} begins without //!", file.display());
    }
}

#[test]
fn every_template_is_used() {
    let all: String = sources().iter().map(|f| fs::read_to_string(f).unwrap()).collect();
    let templates = root().join("templates");
    let mut seen = 0;
    for file in walk(&templates) {
        let name = file.strip_prefix(&templates).unwrap().to_str().unwrap().to_owned();
        assert!(all.contains(&format!("\"{name}\"")), "no source uses template {name}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn migrations_come_in_pairs() {
    let names = |db: &str| -> BTreeSet<String> {
        let dir = fs::read_dir(root().join("migrations").join(db)).unwrap();
        dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("sqlite"), names("postgres"));
}

/// From each top module to the modules that it names, with a file that does.
fn edges() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let mut edges: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for file in sources() {
        let module = edges.entry(top_module(&file)).or_default();
        let text = code(&file);
        // The program names the library by its name.
        let own = if file.ends_with("src/main.rs") { "use pengx::" } else { "crate::" };
        for part in text.split(own).skip(1) {
            for to in first_names(part) {
                module.entry(to).or_insert_with(|| file.clone());
            }
        }
    }
    edges
}

/// `a` of `a::b`, and `a` and `b` of `{a::c, b}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut begins = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(group[begins..at].trim_start()));
                begins = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn names_are_read_out_of_paths() {
    assert_eq!(first_names("model::{A, B};"), ["model"]);
    assert_eq!(first_names("{host, server::{x, y}, storage};\nuse z"), ["host", "server", "storage"]);
}

fn top_module(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// A source without comments and without its unit tests, which may reach further.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\n").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn sources() -> Vec<PathBuf> {
    let mut all = walk(&root().join("src"));
    all.retain(|file| file.extension().is_some_and(|e| e == "rs") && !file.ends_with("tests.rs"));
    assert!(all.len() > 30);
    all
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
