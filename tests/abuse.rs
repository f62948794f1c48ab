//! What careless and hostile clients do, through HTTP, on real storage: each gets one sentence, and nothing is left.

mod backups;
mod copies;
mod hostile;
mod images;
mod input;
mod marks;
mod outage;
mod races;
mod storlinks;
mod volumes;

use std::path::PathBuf;

use pengx::model::*;

use crate::harness::app::{App, make_image};
use crate::harness::http::{Answer, Served};
use crate::harness::world::World;

/// A server with one storlink, and clients of it.
struct Scene {
    http: Served,
    app: App,
    storlink: StorlinkId,
}

impl Scene {
    fn new() -> Self {
        Self::of(App::new())
    }

    fn of(app: App) -> Self {
        let storlink = app.storlink();
        Self { http: Served::new(&app.core), storlink, app }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.app.site.store_dir().join(name)
    }

    /// The call answers so, and the world is what it was.
    fn refused(&self, case: &str, status: u16, says: &[&str], call: impl FnOnce() -> Answer) -> String {
        let before = World::of(&self.app);
        let answer = call();
        assert_eq!(answer.status, status, "{case}: {answer:?}");
        assert_eq!(answer.element("result"), "failure", "{case}");
        let message = answer.message().to_owned();
        for words in says {
            assert!(message.contains(words), "{case}: {words:?} is not in {message:?}");
        }
        self.app.assert_at_rest();
        assert_eq!(World::of(&self.app), before, "{case}: {message}");
        message
    }

    fn tasks(&self) -> usize {
        self.app.store().read(|c| pengx::store::tasks::recent(c, 10_000)).unwrap().len()
    }

    fn add_template(&self, name: &str, disk: DiskId, format: &str) -> Answer {
        let storlink = self.storlink;
        self.http.post(
            "/templates/add/",
            &format!(
                "<t><name>{name}</name><os>OTHER</os><os_arch>X64</os_arch><disk><storlink>{storlink}</storlink>\
                 <uuid>{disk}</uuid><format>{format}</format></disk></t>"
            ),
        )
    }

    /// A template of 4 MiB, through HTTP; its id and its image.
    fn template(&self, name: &str, format: Format) -> (String, PathBuf) {
        let disk = DiskId(uuid::Uuid::new_v4());
        let path = self.path(VolumeName::new(disk, format).as_str());
        make_image(&path, format, 4);
        let added = self.add_template(name, disk, format.word());
        assert_eq!(added.status, 201, "{added:?}");
        let list = self.http.get("/templates/");
        let part =
            list.body.split("<template id=\"").find(|part| part.contains(&format!("<name>{name}</name>"))).unwrap();
        (part[..36].to_owned(), path)
    }

    /// Row 20 with what a VM needs at least, and more.
    fn create_vm(&self, name: &str, more: &str) -> Answer {
        self.http.post("/vms/", &self.vm_body(name, more))
    }

    fn vm_body(&self, name: &str, more: &str) -> String {
        let storlink = self.storlink;
        format!(
            "<vm><name>{name}</name><storlink>{storlink}</storlink><cpu_core>1</cpu_core><memory>64</memory>{more}</vm>"
        )
    }

    /// A VM with an empty disk of 4 MiB; its id.
    fn vm(&self, name: &str) -> String {
        let made = self.create_vm(name, "<os_disk_size>4</os_disk_size><network>0</network>");
        assert_eq!(made.status, 201, "{made:?}");
        let listings = self.app.store().read(pengx::store::vms::listing).unwrap();
        listings.iter().find(|l| l.vm.name == name).unwrap().vm.id.to_string()
    }
}
