//! Operations on a real libvirt, failing and killed at every single point: afterwards the world is as it was, or the
//! operation is finished.

mod backups;
mod copies;
pub(super) mod scenarios;
mod snapshots;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pengx::error::{Error, ErrorKind};
use pengx::model::{Compensation, Format, PowerState, TaskKind, TaskState, Template, VmId};
use pengx::operations::backup::DeleteBackup;
use pengx::operations::template::{DeleteTemplate, PoweroffTemplate};
use pengx::operations::vm::{DeleteVm, PoweroffVm};
use pengx::store::{journal, locks, tasks, templates, vms};
use pengx::tasks::Fate;

use self::scenarios::Scenario;
use super::paused::Paused;
use crate::harness::app::{App, Fuse, Site};
use crate::harness::libvirt::Libvirtd;
use crate::harness::wait::{PATIENCE, wait_until};
use crate::harness::world::World;

/// What lies on the storlink for everybody's drive.
const DISC: &str = "a.iso";

fn state(app: &App, vm: VmId) -> Option<PowerState> {
    app.site.hypervisor.domain(vm).unwrap().map(|d| d.state)
}

/// None of these guests ever lets go of a device, so nobody waits long for it.
const FOR_NOTHING: Duration = Duration::from_millis(500);

fn patient(uri: &str, device_timeout: Duration) -> Arc<Paused> {
    Paused::new(uri, PATIENCE, PATIENCE * 2, device_timeout)
}

/// A libvirt of its own, and what servers of this process see it through.
pub(super) struct Scene {
    pub(super) libvirtd: Libvirtd,
    paused: Arc<Paused>,
}

/// The world with what libvirt itself says of its domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) world: World,
    pub(super) definitions: Vec<String>,
    pub(super) running: Vec<String>,
}

impl Scene {
    /// With a site that has a template.
    pub(super) fn new(name: &str, device_timeout: Duration) -> (Self, App, Sight) {
        let libvirtd = Libvirtd::start(name);
        let paused = patient(&libvirtd.uri, device_timeout);
        let app = paused.clone().site().start();
        let storlink = app.storlink();
        app.template(storlink, Format::Qcow2);
        app.second_storlink();
        std::fs::write(app.site.store_dir().join(DISC), "a disc").unwrap();
        app.assert_at_rest();
        let scene = Self { libvirtd, paused };
        let bare = scene.sight(&app);
        (scene, app, bare)
    }

    pub(super) fn sight(&self, app: &App) -> Sight {
        let mut domains = app.site.hypervisor.domains().unwrap();
        domains.sort_by_key(|domain| domain.id);
        let running = domains.iter().filter(|domain| domain.state.is_active());
        let running = self.documents(running.map(|domain| format!("dumpxml {}", domain.id)));
        for file in running.iter().filter_map(|line| line.strip_prefix("<source file='")?.split('\'').next()) {
            assert!(Path::new(file).exists(), "a running guest holds {file}, which is gone");
        }
        let definitions = self.documents(domains.iter().map(|domain| format!("dumpxml {} --inactive", domain.id)));
        Sight { world: World::of(app), definitions, running }
    }

    fn documents(&self, commands: impl Iterator<Item = String>) -> Vec<String> {
        let commands: Vec<String> = commands.collect();
        if commands.is_empty() { Vec::new() } else { essence(&self.libvirtd.virsh(&[&commands.join("; ")])) }
    }

    /// Waits until all is done, or only a guest could go on that never will, being paused: then somebody pulls its plug.
    /// Whether that was so.
    fn unplug_what_is_stuck(&self, app: &App, subject: Option<VmId>, case: &str) -> bool {
        let store = app.store();
        let at_rest = || store.read(|c| Ok(locks::all(c)?.is_empty() && journal::all(c)?.is_empty()));
        wait_until(case, || {
            if at_rest()? || self.paused.held.load(Ordering::SeqCst) > 0 {
                return Ok(true);
            }
            let (held, undone) = store.read(|c| Ok((locks::all(c)?, journal::all(c)?)))?;
            Err(Error::internal(format!("{undone:?} wait, and {held:?} are held")))
        });
        if at_rest().unwrap() {
            return false;
        }
        let left = store.read(journal::all).unwrap();
        let detach =
            |entry: &Compensation| matches!(entry, Compensation::DetachDisk { .. } | Compensation::DetachNic { .. });
        assert!(left.iter().any(|(_, entry)| detach(&entry.compensation)), "{case}: {left:#?}");
        // That it is held is judged here: the images of what runs are there.
        self.sight(app);
        self.libvirtd.virsh(&["destroy", &subject.unwrap().to_string()]);
        true
    }
}

/// What pengx decides of a domain, out of libvirt's document.
fn essence(document: &str) -> Vec<String> {
    const TAGS: [&str; 8] =
        ["<uuid>", "<title>", "<memory ", "<currentMemory ", "<vcpu placement", "<source file", "<target dev", "<mac "];
    let lines = document.lines().map(str::trim).filter(|line| TAGS.iter().any(|tag| line.starts_with(tag)));
    // libvirt counts the images that it has opened.
    lines.map(|line| line.split(" index=").next().unwrap().to_owned()).collect()
}

impl Sight {
    /// The same after somebody has pulled the plugs.
    fn off(&self) -> Self {
        let domains = self.world.domains.iter().map(|line| line.replace("PAUSED", "SHUTDOWN")).collect();
        Self { world: World { domains, ..self.world.clone() }, running: Vec::new(), ..self.clone() }
    }

    /// vCPUs that were plugged in stay.
    fn with_plugged_vcpus(&self) -> Self {
        let swap = |lines: &[String]| lines.iter().map(|line| line.replace("current='1'", "current='2'")).collect();
        let (definitions, running) = (swap(&self.definitions), swap(&self.running));
        Self { world: self.world.with_plugged_vcpus(), definitions, running }
    }

    fn without_boot_times(&self) -> Self {
        Self { world: self.world.without_boot_times(), ..self.clone() }
    }
}

impl Scenario {
    fn stage(&self, scene: &Scene, app: &App) -> (Option<VmId>, Sight) {
        let subject = (self.prepare)(app);
        app.assert_at_rest();
        (subject, scene.sight(app))
    }

    /// Finished if the task says so, else untouched; and never anything in between. What is there now.
    fn judge(&self, scene: &Scene, app: &App, subject: Option<VmId>, before: &Sight, case: &str) -> Sight {
        let before = if scene.unplug_what_is_stuck(app, subject, case) { &before.off() } else { before };
        app.assert_at_rest();
        let after = scene.sight(app);
        let last = app.store().read(|c| tasks::recent(c, 1)).unwrap().remove(0);
        let (succeeded, done) = (last.state == TaskState::Success, (self.done)(app, subject));
        let undone = after == *before
            || match last.kind {
                // A power button that was pressed has been pressed, and what is gone is gone.
                TaskKind::TemplatePoweroff | TaskKind::VolumeDelete | TaskKind::SiteRepair => done,
                // A reset that failed half way was started again.
                TaskKind::VmReset => after.without_boot_times() == before.without_boot_times(),
                TaskKind::VmUpdate => after == before.with_plugged_vcpus(),
                // Of several disks some may have moved, and stay moved.
                TaskKind::VmSmigrate => copies::is_whole(app, subject, before, &after),
                _ => false,
            };
        assert!(
            if succeeded { done } else { undone },
            "{case}: the task is {} ({})\nbefore: {before:#?}\nafter: {after:#?}",
            last.state,
            last.message
        );
        assert!(!last.message.is_empty(), "{case}: a task that is over says how it ended");
        after
    }
}

/// Takes away whatever VM and template was made; then nothing of it is left.
pub(super) fn clear(scene: &Scene, app: &App, bare: &Sight, case: &str) {
    let off = |outcome: pengx::error::Result<()>| {
        if let Err(error) = outcome {
            assert!(matches!(error.kind(), ErrorKind::WrongState { .. }), "{case}: {error}");
        }
    };
    for backup in app.store().read(pengx::store::backups::all).unwrap() {
        app.run(DeleteBackup { vm: backup.vm, backup: backup.id }).unwrap();
    }
    for listing in app.store().read(vms::listing).unwrap() {
        let vm = listing.vm.id;
        off(app.run(PoweroffVm { vm }));
        app.run(DeleteVm { vm }).unwrap();
    }
    for made in app.store().read(templates::all).unwrap() {
        let template = made.id;
        if made.name == "t" {
            off(app.run(PoweroffTemplate { template }));
            app.run(DeleteTemplate { template }).unwrap();
            assert_eq!(state(app, Template::domain(template)), None, "{case}");
        }
    }
    app.assert_at_rest();
    assert_eq!(scene.sight(app), *bare, "{case}");
}

/// One round for each point of each operation: `round` breaks the n-th point, and says whether there was one.
fn sweep(
    scene: &Scene,
    mut app: App,
    bare: &Sight,
    how: &str,
    scenarios: &[Scenario],
    round: impl Fn(App, usize, &Scenario, usize, Option<VmId>) -> (App, bool),
) -> App {
    let mut points = 0;
    for (which, scenario) in scenarios.iter().enumerate() {
        let mut kept = None;
        for n in 1.. {
            let case = format!("{} {how} at point {n}", scenario.name);
            let (subject, before) = kept.take().unwrap_or_else(|| scenario.stage(scene, &app));
            scene.paused.held.store(0, Ordering::SeqCst);
            let broken;
            (app, broken) = round(app, which, scenario, n, subject);
            let after = scenario.judge(scene, &app, subject, &before, &case);
            if broken && after.without_boot_times() == before.without_boot_times() {
                // As if nothing had been: as good for the next round as another.
                kept = Some((subject, after));
            } else {
                clear(scene, &app, bare, &case);
            }
            if !broken {
                break;
            }
            points += 1;
        }
    }
    println!("libvirt: {how} at {points} points of {} operations", scenarios.len());
    assert!(points > 9 * scenarios.len());
    app
}

#[test]
fn operations_on_libvirt_survive_a_failure_at_every_point() {
    let (scene, app, bare) = Scene::new("failing", FOR_NOTHING);
    let app = sweep(&scene, app, &bare, "fails", &scenarios::all(), |app, _, scenario, n, subject| {
        fail_at(app, scenario, n, subject)
    });

    let vm = scenarios::paused(&app);
    let before = scene.sight(&app);
    let refused = scenarios::delete_disk(&app, vm).unwrap_err();
    assert!(refused.to_string().contains("resume it first, so that its guest can let go of the disk"), "{refused}");
    assert_eq!(scene.sight(&app), before);
    clear(&scene, &app, &bare, "the last");
}

fn fail_at(app: App, scenario: &Scenario, n: usize, subject: Option<VmId>) -> (App, bool) {
    app.fuse.arm(&[(n, Fate::Fail)]);
    let outcome = (scenario.run)(&app, subject);
    let failed = app.fuse.blown.load(Ordering::SeqCst);
    app.fuse.arm(&[]);
    if !failed {
        outcome.unwrap();
    }
    (app, failed)
}

/// What the victim, which is this very test in a process of its own, is told through its environment.
const VICTIM: &str = "PENGX_TEST_VICTIM";

#[test]
fn operations_on_libvirt_survive_kill_9_at_every_point() {
    let test = format!("{}::operations_on_libvirt_survive_kill_9_at_every_point", module_path!());
    sweep_of_deaths(&test, "killing", &scenarios::all());
}

/// `test` is the one that calls this: it runs again as each victim.
fn sweep_of_deaths(test: &str, name: &str, scenarios: &[Scenario]) {
    if let Ok(orders) = std::env::var(VICTIM) {
        return die(&orders, scenarios);
    }
    let (scene, app, bare) = Scene::new(name, FOR_NOTHING);
    sweep(&scene, app, &bare, "is killed", scenarios, |app, which, scenario, n, subject| {
        app.core.stop(PATIENCE);
        let App { site, core, .. } = app;
        drop(core);
        let killed = kill_at(test, &site, &scene.libvirtd.uri, which, n, subject);
        let app = site.start();
        if !killed {
            assert!((scenario.done)(&app, subject), "{}: it is not done", scenario.name);
        }
        (app, killed)
    });
}

/// Lets a process of its own run the operation on this site; whether it was killed before it was done.
fn kill_at(test: &str, site: &Site, uri: &str, which: usize, n: usize, vm: Option<VmId>) -> bool {
    let vm = vm.map_or_else(|| "none".to_owned(), |vm| vm.to_string());
    let test = test.split_once("::").unwrap().1;
    let victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VICTIM, format!("{which} {n} {vm} {} {uri}", site.database_url))
        // What it leaves in temporary directories goes with the site.
        .env("TMPDIR", site.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&victim.stdout);
    if victim.status.signal() == Some(9) {
        return true;
    }
    assert!(victim.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&victim.stderr));
    false
}

/// The victim's life.
fn die(orders: &str, scenarios: &[Scenario]) {
    let words: Vec<&str> = orders.split(' ').collect();
    let [which, n, vm, database_url, uri] = words[..] else { panic!("{orders}") };
    let mut site = patient(uri, FOR_NOTHING).site();
    site.database_url = database_url.to_owned();
    let fuse: Arc<Fuse> = Arc::default();
    fuse.for_real.store(true, Ordering::SeqCst);
    let app = site.start_with(fuse);
    app.fuse.arm(&[(n.parse().unwrap(), Fate::Die)]);
    (scenarios[which.parse::<usize>().unwrap()].run)(&app, vm.parse().ok()).unwrap();
    app.core.stop(Duration::from_secs(10));
}
