//! The console gateway: tickets, WebSockets, and how each end of one comes about. The screen behind it is the test's own.

mod ends;
mod tickets;
mod views;

use std::sync::Arc;
use std::time::Duration;

use pengx::dialects::console::Pace;
use pengx::dialects::pengx::Settings;
use pengx::model::{RandomIds, Role, Secret, SystemClock, VmId};
use pengx::operations::Registry;
use pengx::operations::vm::StartVm;
use pengx::server::Limits;

use crate::harness::app::{App, Site};
use crate::harness::http::{Answer, Served};
use crate::harness::screen::{Screen, Seat};
use crate::harness::viewer::Viewer;
use crate::harness::wait::wait_until;

const NOBODY: &str = "0f6a9c1e-0000-4000-8000-00000000ffff";

/// A server with a VM that runs, whose screen the test has.
struct Scene {
    http: Served,
    screen: Screen,
    vm: VmId,
    app: App,
}

impl Scene {
    fn new() -> Self {
        Self::with(Settings::default(), Limits::default())
    }

    fn with(settings: Settings, limits: Limits) -> Self {
        Self::showing(Screen::new(), settings, limits)
    }

    fn showing(screen: Screen, settings: Settings, limits: Limits) -> Self {
        let app = Site::new().start();
        let storlink = app.storlink();
        let vm = add_vm(&app, storlink, "web1");
        app.run(StartVm { vm }).unwrap();
        let scene = Self { http: Served::with(&app.core, settings, limits, None), screen, vm, app };
        scene.put(scene.screen.port);
        scene
    }

    /// The screen of the VM is there from now on.
    fn put(&self, port: u16) {
        assert!(self.app.site.fake.put_screen(self.vm, port));
        let port = port.to_string();
        wait_until("the screen is seen", || {
            Ok(self.http.get(&format!("/vms/{}/", self.vm)).element("vnc_port") == port)
        });
    }

    fn uri(&self) -> String {
        format!("/vms/{}/console/", self.vm)
    }

    fn ticket(&self) -> String {
        let made = self.http.post(&self.uri(), "");
        assert_eq!(made.status, 201, "{made:?}");
        made.element("ticket").to_owned()
    }

    /// On the strength of its place alone.
    fn open(&self) -> Result<Viewer, Answer> {
        Viewer::open(self.http.address, &self.uri(), &[])
    }

    /// Both ends, after both handshakes.
    fn watch(&self) -> (Viewer, Seat) {
        let viewer = self.open().unwrap().welcomed();
        (viewer, self.screen.seat())
    }

    fn accounts(&self) -> Registry {
        Registry::new(self.app.store(), Arc::new(SystemClock), Arc::new(RandomIds))
    }

    /// An account of this role and name, which the server knows; the header that speaks for it.
    fn add(&self, accounts: &Registry, role: Role) -> String {
        accounts.add(role.word(), &Secret::new("a password".to_owned()), role).unwrap();
        let token = accounts.create_token(role.word(), "", None).unwrap().1;
        let header = format!("Bearer {}", token.reveal());
        let get = || self.http.ask("GET", "/vms/", &[("Authorization", &header)], "").status;
        let nobody = || self.http.get("/vms/").status;
        wait_until("the account is known", || Ok(get() == 200 && nobody() == 401));
        header
    }
}

pub fn add_vm(app: &App, storlink: pengx::model::StorlinkId, name: &str) -> VmId {
    app.run(app.vm_of(storlink, None, name)).unwrap();
    let all = app.store().read(pengx::store::vms::listing).unwrap();
    all.iter().find(|listing| listing.vm.name.as_str() == name).unwrap().vm.id
}

/// In a hurry, as far as a test wants to see its end.
fn hasty(ping: Duration) -> Settings {
    Settings { console: Pace { ping, ..Pace::default() }, ..Settings::default() }
}
