//! Who is let in, and to what.

mod changes;
mod gate;
mod matrix;
mod program;
mod sight;

use std::sync::Arc;

use pengx::model::{RandomIds, Role, Secret, SystemClock};
use pengx::operations::Registry;

use crate::harness::app::{App, Site};
use crate::harness::http::{Answer, Served, basic};
use crate::harness::postgres;
use crate::harness::wait::wait_until;

const PASSWORD: &str = "correct horse battery";

/// A server, its front door, and the accounts as another process keeps them.
struct Scene {
    http: Served,
    app: App,
    registry: Registry,
}

impl Scene {
    fn sqlite() -> Self {
        Self::on(Site::new())
    }

    fn postgres() -> Self {
        let mut site = Site::new();
        site.database_url = postgres::database();
        Self::on(site)
    }

    fn on(site: Site) -> Self {
        let app = site.start();
        let registry = Registry::new(app.store(), Arc::new(SystemClock), Arc::new(RandomIds));
        Self { http: Served::new(&app.core), app, registry }
    }

    /// Adds a user of this role, under its name; a token of it.
    fn add(&self, name: &str, role: Role) -> String {
        self.registry.add(name, &secret(PASSWORD), role).unwrap();
        self.token(name)
    }

    fn token(&self, name: &str) -> String {
        self.registry.create_token(name, "", None).unwrap().1.reveal().to_owned()
    }

    fn with(&self, authorization: &str, method: &str, uri: &str) -> Answer {
        let headers = [("Authorization", authorization), ("Content-Type", "application/xml")];
        self.http.ask(method, uri, &headers, "")
    }

    fn get(&self, authorization: &str) -> u16 {
        self.with(authorization, "GET", "/vms/").status
    }

    /// Until the server has seen what was changed beside it.
    fn wait(&self, authorization: &str, status: u16) {
        wait_until(&format!("{authorization} is answered {status}"), || Ok(self.get(authorization) == status));
    }
}

fn on_both(test: fn(&Scene)) {
    for scene in [Scene::sqlite(), Scene::postgres()] {
        println!("on {}", scene.app.site.database_url);
        test(&scene);
        scene.app.assert_at_rest();
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}
