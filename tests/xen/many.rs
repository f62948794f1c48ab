//! Many guests, and what it costs Xen that everybody asks for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pengx::exec::{Command, ExecError, Output, Runner, SystemRunner, Watch};
use pengx::hypervisor::{FakeHypervisor, XlHypervisor, XlOptions};
use pengx::operations::vm::CreateVm;

use crate::harness::app::Site;
use crate::harness::http::Served;
use crate::harness::wait::wait_until;
use crate::harness::xen::{shared, try_xl, xl};

const GUESTS: usize = 50;
const CLIENTS: usize = 4;
const ASKED_FOR: Duration = Duration::from_secs(10);

/// Runs what it is told, and counts how often that is `xl`.
struct Counting {
    runner: SystemRunner,
    runs: Arc<AtomicUsize>,
}

impl Runner for Counting {
    fn run(&self, command: &Command, watch: &mut Watch<'_>) -> Result<Output, ExecError> {
        self.runs.fetch_add(usize::from(command.program == "xl"), Ordering::SeqCst);
        self.runner.run(command, watch)
    }
}

/// Domains without disks, which do nothing.
struct Stubs(Vec<String>);

impl Drop for Stubs {
    fn drop(&mut self) {
        for name in &self.0 {
            drop(try_xl(60, &["destroy", name]));
        }
    }
}

#[test]
#[ignore = "needs a Xen control domain: make test-xen"]
fn however_many_ask_for_fifty_guests_xen_is_asked_once_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let runs = Arc::<AtomicUsize>::default();
    let runner = Counting { runner: SystemRunner::new(), runs: Arc::clone(&runs) };
    let options = XlOptions::new(dir.path().join("domains"));
    let xen = XlHypervisor::new(options, Arc::new(runner)).expect("a control domain of Xen");
    let mut site = Site::on(Arc::new(xen), FakeHypervisor::new());
    site.settings.bridges.clear();
    let app = site.start();
    let storlink = app.storlink();
    let mut stubs = Stubs(Vec::new());
    for n in 0..GUESTS {
        let wish = CreateVm { extra_disk_size: None, ..app.vm_of(storlink, None, &format!("web{n}")) };
        let vm = app.run(wish).unwrap().to_string();
        // As if pengx had started it.
        let text = format!(
            "name = 'pengx-{vm}'\nuuid = '{vm}'\ntype = 'pv'\nkernel = '{}'\nmemory = 4\n",
            shared("stub").display()
        );
        let file = dir.path().join("stub.cfg");
        std::fs::write(&file, text).unwrap();
        xl(&["create", "-q", file.to_str().unwrap()]);
        stubs.0.push(format!("pengx-{vm}"));
    }
    let http = Served::new(&app.core);
    let states = || http.get("/vms/").body.matches("<status>RUNNING</status>").count();
    wait_until("all run", || Ok(states() == GUESTS));

    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (before, began) = (runs.load(Ordering::SeqCst), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(states(), GUESTS);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(ASKED_FOR);
        stop.store(true, Ordering::Relaxed);
    });
    let (runs_then, took) = (runs.load(Ordering::SeqCst) - before, began.elapsed());
    println!("{} lists of {GUESTS} guests in {took:.1?}: {runs_then} calls of xl", asked.into_inner());
    assert!(runs_then <= took.as_secs() as usize + 1, "{runs_then} in {took:?}");

    // What others do is seen by the next look.
    xl(&["pause", &stubs.0[0]]);
    let began = Instant::now();
    wait_until("it is seen", || Ok(http.get("/vms/").body.matches("<status>PAUSED</status>").count() == 1));
    println!("paused by somebody else: seen after {:.1?}", began.elapsed());
}
