//! The contract, row by row, over HTTP: what is served, what is answered to the letter, what is refused and how.

mod backups;
mod bodies;
mod change;
mod copies;
mod create;
mod devices;
mod golden;
mod isos;
mod later;
mod manual;
mod moving;
mod outage;
mod pms;
mod protocol;
mod reads;
mod refusals;
mod schema;
mod snapshots;
mod states;
mod storlinks;
mod table;
mod tasks;
mod templates;
mod volumes;
mod walk;

use std::path::PathBuf;

use crate::harness::app::{App, Site};
use crate::harness::http::{Answer, Served};
use crate::harness::wait::wait_until;

/// Nobody's id.
const NOBODY: &str = "0f6a9c1e-0000-4000-8000-00000000ffff";

/// A site with one server and its front door.
struct Api {
    http: Served,
    app: App,
}

impl Api {
    fn new() -> Self {
        Self::on(Site::new())
    }

    fn on(site: Site) -> Self {
        let app = site.start();
        let http = Served::new(&app.core);
        Self { http, app }
    }

    /// With a storlink, a template and an id for each.
    fn stocked() -> (Self, Stock) {
        let api = Self::new();
        let storlink = api.app.storlink();
        let template = api.app.template(storlink, pengx::model::Format::Qcow2);
        let stock = Stock { storlink: storlink.to_string(), template: template.to_string() };
        (api, stock)
    }

    fn get(&self, uri: &str) -> Answer {
        self.http.get(uri)
    }

    fn post(&self, uri: &str, xml: &str) -> Answer {
        self.http.post(uri, xml)
    }

    fn put(&self, uri: &str, xml: &str) -> Answer {
        self.http.send("PUT", uri, xml)
    }

    /// Another run of the server on the same site.
    fn restarted(self) -> Self {
        let Self { http, app } = self;
        drop(http);
        let app = app.restart();
        Self { http: Served::new(&app.core), app }
    }

    /// Of the VM of this name.
    fn vm_id(&self, name: &str) -> String {
        let list = self.get("/vms/");
        let names = list.body.split("\n    <name>").skip(1).map(|part| part.split('<').next().unwrap());
        let at = names.into_iter().position(|n| n == name).unwrap_or_else(|| panic!("no vm {name} in {}", list.body));
        list.ids("vm")[at].clone()
    }

    /// Creates an empty VM without NICs.
    fn vm(&self, stock: &Stock, name: &str) -> String {
        let made = self.post("/vms/", &vm(name, stock, "<os_disk_size>4</os_disk_size>"));
        assert_eq!(made.status, 201, "{made:?}");
        self.vm_id(name)
    }

    fn status(&self, vm: &str) -> String {
        let answer = self.get(&format!("/vms/{vm}/"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.element("status").to_owned()
    }

    fn wait_status(&self, vm: &str, status: &str) {
        wait_until(&format!("vm {vm} is {status}"), || Ok(self.status(vm) == status));
    }
}

struct Stock {
    storlink: String,
    template: String,
}

/// The least body of a create, and `rest`.
fn vm(name: &str, stock: &Stock, rest: &str) -> String {
    let storlink = &stock.storlink;
    format!(
        "<vm><name>{name}</name><storlink>{storlink}</storlink><cpu_core>1</cpu_core><memory>64</memory>{rest}</vm>"
    )
}

impl Answer {
    /// The answer is a result document with these three.
    #[track_caller]
    fn is(&self, status: u16, result: &str, message: &str) {
        let body = format!("<root>\n  <result>{result}</result>\n  <message>{message}</message>\n</root>\n");
        assert_eq!((self.status, self.body.as_str()), (status, body.as_str()));
        assert_eq!(self.header("content-type"), Some("application/xml; charset=utf-8"));
    }

    #[track_caller]
    fn done(&self, status: u16, message: &str) {
        self.is(status, "success", message);
    }

    /// Refused in these words; quotes and angle brackets as they are in XML.
    #[track_caller]
    fn refused(&self, status: u16, message: &str) {
        self.is(status, "failure", message);
    }

    #[track_caller]
    fn empty_204(&self) {
        assert_eq!((self.status, self.body.as_str()), (204, ""));
        assert_eq!((self.header("content-length"), self.header("transfer-encoding")), (None, None));
    }
}

/// A file of these tests.
fn file(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
