//! A create whose copy takes a while, and what happens in the middle of it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, TcpStream};

use pengx::model::{TaskKind, TaskState};

use super::{add_storlink, add_template, ended, task_uri, template_image, vm_body};
use crate::harness::libvirt::Libvirtd;
use crate::harness::server::{Place, Program};
use crate::harness::wait::wait_until;

/// Long enough to be caught in the middle.
const TEMPLATE_MIB: usize = 512;

/// A server with a large raw template.
struct Large {
    libvirtd: Libvirtd,
    place: Place,
    template: String,
}

impl Large {
    fn new(name: &str) -> (Self, Program) {
        let libvirtd = Libvirtd::start(name);
        let place = Place::new(&libvirtd.uri, "");
        let block: Vec<u8> = (0..1 << 20).map(|i: u32| i.wrapping_mul(0x9e37_79b1).to_le_bytes()[3] | 1).collect();
        let mut image = std::fs::File::create(template_image(&place, "raw")).unwrap();
        (0..TEMPLATE_MIB).for_each(|_| image.write_all(&block).unwrap());
        let server = place.serve();
        add_storlink(&server, &place);
        let template = add_template(&server, "raw");
        (Self { libvirtd, place, template }, server)
    }

    fn body(&self) -> String {
        vm_body("web1", &self.template, "", "2", "")
    }

    /// The copy has begun and is not done.
    fn wait_for_copy(&self) {
        wait_until("the copy is under way", || Ok(self.place.unfinished_bytes() > 1 << 20));
    }

    fn template_alone(&self) -> BTreeSet<String> {
        [template_image(&self.place, "raw").file_name().unwrap().to_str().unwrap().to_owned()].into()
    }

    /// No trace of the VM that was to be made.
    fn assert_nothing_left(&self, server: &Program) {
        self.place.assert_at_rest();
        assert_eq!(self.place.files(), self.template_alone());
        assert_eq!(self.libvirtd.virsh(&["list", "--all", "--uuid"]).trim(), "");
        assert_eq!(server.get("/vms/").ids("vm"), [""; 0]);
    }
}

#[test]
fn a_server_killed_while_it_copies_leaves_nothing_after_the_next_start() {
    let (large, server) = Large::new("killed");
    let task = task_uri(&server.post_async("/vms/", &large.body()));
    large.wait_for_copy();
    server.kill();
    wait_until("qemu-img went with the server", || Ok(large.place.tools().is_empty()));
    assert!(large.place.unfinished_bytes() > 0, "it was killed in the middle");
    let server = large.place.serve();
    let record = ended(&server, &task);
    assert_eq!(record.element("state"), "interrupted");
    assert_eq!(record.message(), "the server stopped while the task ran; what it had done is undone");
    large.assert_nothing_left(&server);
    // The name is free, and the template is as good as before.
    let made = server.post("/vms/", &large.body());
    assert_eq!(made.status, 201, "{made:?}");
}

#[test]
fn a_client_that_hangs_up_does_not_stop_its_create() {
    let (large, server) = Large::new("hung-up");
    let body = large.body();
    let mut client = TcpStream::connect(server.address).unwrap();
    let host = server.address;
    let head = format!("POST /vms/ HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/xml\r\n");
    write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    large.wait_for_copy();
    client.shutdown(Shutdown::Both).unwrap();
    drop(client);
    wait_until("the VM is there all the same", || Ok(server.get("/vms/").ids("vm").len() == 1));
    large.place.assert_at_rest();
    let task = large.place.last_task();
    assert_eq!((task.kind, task.state), (TaskKind::VmCreate, TaskState::Success));
    assert_eq!(large.place.files().len(), 3);
    let vm = server.get("/vms/").ids("vm").remove(0);
    assert_eq!(large.libvirtd.virsh(&["list", "--all", "--uuid"]).trim(), vm);
    assert_eq!(server.delete(&format!("/vms/{vm}/")).status, 204);
    large.assert_nothing_left(&server);
}

#[test]
fn a_server_that_is_asked_to_stop_while_it_copies_undoes_the_create_and_exits_0() {
    let (large, server) = Large::new("stopped");
    let task = task_uri(&server.post_async("/vms/", &large.body()));
    large.wait_for_copy();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(large.place.files(), large.template_alone());
    large.place.assert_at_rest();
    let server = large.place.serve();
    let record = ended(&server, &task);
    assert_eq!(record.element("state"), "failure");
    assert!(record.message().contains("cancel"), "{record:?}");
    large.assert_nothing_left(&server);
}
