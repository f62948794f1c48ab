//! What a power operation costs: which commands run from the look before it to the one after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::exec::SystemRunner;

/// The world of one domain, which does what `xl` says. It has no process that restarts it.
fn obeying(flags: Option<&'static str>) -> Stage {
    let now = Mutex::new(flags);
    Stage::new(move |line| {
        let mut now = now.lock().unwrap();
        *now = match line {
            "xl pause 7" => Some("--p---"),
            "xl unpause 7" => Some("-b----"),
            "xl destroy 7" => None,
            _ if line.starts_with("xl create -q /") => Some("-b----"),
            _ => *now,
        };
        let rows = now.map_or(HEAD.to_owned(), |flags| row("x", 7, flags));
        // A screen is asked for by an operation if it was never seen before.
        match line {
            "xl list -v" => said(&rows),
            _ if line.starts_with("xenstore-read") => said("5900\n"),
            _ => said(""),
        }
    })
}

impl Stage {
    /// What an operation runs that looks, does this and looks again, while somebody else looks all the time.
    fn cost(&self, verb: impl FnOnce(&XlHypervisor) -> Result<()>) -> (Vec<String>, PowerState) {
        self.state();
        self.scripted.told.lock().unwrap().clear();
        self.state();
        verb(&self.xl).unwrap();
        let state = self.state();
        (self.told(""), state)
    }
}

#[test]
fn a_power_operation_is_one_call_of_xl() {
    type Verb = fn(&XlHypervisor) -> Result<()>;
    let verbs: [(&str, Verb, &str, PowerState); 5] = [
        ("-b----", |xl| xl.pause(id()), "xl pause 7", PowerState::Paused),
        ("--p---", |xl| xl.unpause(id()), "xl unpause 7", PowerState::Running),
        ("-b----", |xl| xl.request_shutdown(id()), "xl shutdown -F 7", PowerState::Running),
        ("-b----", |xl| xl.request_reboot(id()), "xl reboot -F 7", PowerState::Running),
        ("-b----", |xl| xl.destroy(id()), "xl destroy 7", PowerState::Shutdown),
    ];
    for (flags, verb, command, state) in verbs {
        let stage = obeying(Some(flags));
        assert_eq!(stage.cost(verb), (vec![command.to_owned()], state));
        // Xen says the same.
        assert_eq!(stage.xl.inner.look(Age::Fresh).unwrap().state(id()), Some(state), "{command}");
    }
}

#[test]
fn a_start_looks_at_xen_once_before() {
    let stage = obeying(None);
    let start = |xl: &XlHypervisor| {
        xl.define(&definition(ID).spec)?;
        xl.start(id(), Start::Running)
    };
    let run = stage.xl.inner.definitions.path(id(), Kept::Run);
    let create = format!("xl create -q {}", run.display());
    // It has no QEMU here, whose command line would tell its number, and which would tell its screen.
    let screen = "xenstore-read /local/domain/7/console/vnc-port";
    let told = ["xl list -v", &create, "xl list -v", screen].map(str::to_owned);
    assert_eq!(stage.cost(start), (told.into(), PowerState::Running));
}

#[test]
fn a_qemu_tells_the_number_and_the_screen_of_what_was_started() {
    const OTHER: &str = "00000000-0000-4000-8000-00000000a0e1";
    let stage = Stage::new(|line| said(if line == "xl list -v" { HEAD } else { "" }));
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut spec = definition(OTHER).spec;
    spec.disks.push(DiskSpec {
        order: 0,
        source: VolumeSource::File(file.path().to_owned()),
        format: Format::Qcow2,
        cache: CacheMode::Writeback,
        backing: Vec::new(),
    });
    let image = json_of(file.path());
    serving(&stage.xl.inner.options.run_dir.join("qmp-libxenstat-4294967290"), image.leak());
    let over = AtomicBool::new(false);
    stage.state();
    stage.scripted.told.lock().unwrap().clear();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let name = format!("pengx-{OTHER}");
            let words = ["-c", "sleep 60; :", "qemu", "-xen-domid", "4294967290", "-name", &name];
            let qemu = Command::new("sh", Duration::from_secs(60)).args(words);
            SystemRunner.run(&qemu, &mut Watch { cancel: &over, line: &mut |_| {}, lost: &|_| None })
        });
        while processes::device_models_of(&format!("pengx-{OTHER}")).len() != 1 {
            std::thread::yield_now();
        }
        let done = stage.xl.define(&spec).and_then(|()| stage.xl.start(spec.id, Start::Paused));
        let shown = stage.xl.domain(spec.id);
        over.store(true, Ordering::Relaxed);
        done.unwrap();
        let shown = shown.unwrap().unwrap();
        assert_eq!(
            (shown.state, shown.number, shown.vnc.unwrap().port),
            (PowerState::Paused, Some(4_294_967_290), 5901)
        );
    });
    let run = stage.xl.inner.definitions.path(spec.id, Kept::Run);
    assert_eq!(stage.told(""), ["xl list -v".to_owned(), format!("xl create -q -p {}", run.display())]);
}

fn json_of(file: &Path) -> String {
    let image = serde_json::json!({ "filename": file, "format": "qcow2" });
    serde_json::json!([{ "qdev": "/machine/x", "inserted": { "node-name": "block1", "image": image } }]).to_string()
}

/// A stage whose lists of Xen, but the first, are answered when they are let go, by what was so when they began.
fn slow(flags: &'static str) -> (Stage, Receiver<()>, Sender<()>) {
    let (begun, begins) = channel();
    let (go, goes) = channel();
    let (now, first, goes) = (Mutex::new(flags), AtomicBool::new(true), Mutex::new(goes));
    let stage = Stage::new(move |line| {
        if line == "xl pause 7" {
            *now.lock().unwrap() = "--p---";
        }
        if line != "xl list -v" {
            return said("");
        }
        let rows = row("x", 7, *now.lock().unwrap());
        if !first.swap(false, Ordering::SeqCst) {
            begun.send(()).unwrap();
            goes.lock().unwrap().recv().unwrap();
        }
        said(&rows)
    });
    (stage, begins, go)
}

#[test]
fn nobody_waits_for_a_list_that_is_made_beside_and_it_hides_nothing() {
    let (stage, begins, go) = slow("-b----");
    assert_eq!(stage.state(), PowerState::Running);
    std::thread::scope(|scope| {
        let list = scope.spawn(|| stage.xl.inner.look(Age::Fresh).unwrap().state(id()));
        begins.recv().unwrap();
        stage.xl.pause(id()).unwrap();
        assert_eq!(stage.state(), PowerState::Paused);
        go.send(()).unwrap();
        assert_eq!(list.join().unwrap(), Some(PowerState::Paused), "the list was begun before");
    });
    assert_eq!(stage.state(), PowerState::Paused);
    assert_eq!(stage.told("xl list").len(), 2);
    // Who watches hears it from Xen.
    go.send(()).unwrap();
    assert_eq!(stage.xl.inner.look(Age::Said).unwrap().state(id()), Some(PowerState::Paused));
    assert_eq!(stage.told("xl list").len(), 3);
}

/// What Xen says later is so: somebody else let it go, or paused it, too.
#[test]
fn what_others_do_is_seen_by_the_next_list() {
    let stage = with("-b----");
    stage.state();
    stage.xl.pause(id()).unwrap();
    assert_eq!(stage.state(), PowerState::Paused);
    assert_eq!(stage.xl.inner.look(Age::Said).unwrap().state(id()), Some(PowerState::Running));
    assert_eq!(stage.state(), PowerState::Running);
}

#[test]
fn what_rebooted_since_it_was_seen_is_ended_all_the_same() {
    let domid = Mutex::new(Some(7));
    let stage = Stage::new(move |line| {
        let mut domid = domid.lock().unwrap();
        match line {
            "xl list -v" => said(&domid.map_or(HEAD.to_owned(), |domid| row("x", domid, "-b----"))),
            "xl destroy 8" => {
                *domid = None;
                said("")
            }
            "xl destroy 7" => failed("7 is an invalid domain identifier (rc=-6)"),
            // It is asked to, and does.
            _ => {
                *domid = Some(8);
                said("")
            }
        }
    });
    assert_eq!(stage.state(), PowerState::Running);
    stage.xl.request_reboot(id()).unwrap();
    stage.xl.destroy(id()).unwrap();
    assert_eq!(stage.told("xl destroy"), ["xl destroy 7", "xl destroy 8"]);
    assert_eq!(stage.state(), PowerState::Shutdown);
}

#[test]
fn what_is_off_is_said_to_be_so_by_xen_and_now() {
    let there = AtomicBool::new(false);
    let stage = Stage::new(move |line| match line {
        // It was started by somebody else after the first look.
        "xl list -v" if there.swap(true, Ordering::SeqCst) => said(&row("x", 7, "-b----")),
        "xl list -v" => said(HEAD),
        _ => said(""),
    });
    assert_eq!(stage.state(), PowerState::Shutdown);
    stage.xl.destroy(id()).unwrap();
    assert_eq!(stage.told("xl destroy"), ["xl destroy 7"]);
}

#[test]
fn a_guest_that_is_made_anew_by_its_reboot_was_not_paused_by_anybody() {
    let lists = Arc::new(Mutex::new(vec![("-b----", 7), ("--p---", 8), ("--p---", 8), ("r-----", 8), ("--p---", 8)]));
    let script = Arc::clone(&lists);
    let stage = Stage::new(move |line| match line {
        "xl list -v" => {
            let mut lists = script.lock().unwrap();
            let (flags, domid) = if lists.len() > 1 { lists.remove(0) } else { lists[0] };
            said(&row(&format!("pengx-{ID}"), domid, flags))
        }
        _ => said(""),
    });
    stage.xl.inner.definitions.write(&definition(ID), Kept::Run).unwrap();
    let seen: Vec<PowerState> = std::iter::repeat_with(|| {
        stage.xl.inner.seen.touch();
        stage.state()
    })
    .take(5)
    .collect();
    let [running, paused] = [PowerState::Running, PowerState::Paused];
    assert_eq!(seen, [running, running, running, running, paused], "only then somebody has paused it");
}
