//! What a helper program reaches, however little its server may do: the files that it was given, and nothing else of ours.

use std::fs::{read_link, read_to_string};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pengx::exec::{Command, Failure, Limits, Runner, SystemRunner};
use pengx::hypervisor::{DomainType, FakeHypervisor, Hypervisor, LibvirtHypervisor, LibvirtOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::{add_storlink, add_template, ended, task_uri, template_image, vm_body};
use crate::harness::app::Site;
use crate::harness::http::Served;
use crate::harness::libvirt::Libvirtd;
use crate::harness::postgres;
use crate::harness::server::{Place, Program};
use crate::harness::wait::wait_until;

/// Long enough to be caught in the middle.
const DISK_MIB: u64 = 256;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_helper_reaches_no_listener_of_this_host() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let image = format!("nbd://{}/", listener.local_addr().unwrap());
    // Anybody else's would come.
    let mut foreign = std::process::Command::new("qemu-img");
    let mut foreign = foreign.args(["info", &image]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("it comes", || Ok(listener.accept().is_ok()));
    foreign.kill().unwrap();
    foreign.wait().unwrap();

    let limits = Limits { address_space_bytes: Some(8 << 30), ..Limits::default() };
    let ours = Command::new("qemu-img", MINUTE).args(["info", &image]).limits(limits);
    let refused = SystemRunner.run_quietly(&ours).unwrap_err();
    assert!(matches!(refused.failure, Failure::Exit(1)), "{refused}");
    assert!(refused.stderr.contains("Network is unreachable"), "{refused}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// With all that a server has open: both databases, libvirt, clients, files, pipes.
#[test]
fn a_helper_gets_no_descriptor_of_ours() {
    let options = LibvirtOptions { domain_type: DomainType::Qemu, ..LibvirtOptions::default() };
    let libvirt = Arc::new(LibvirtHypervisor::new(&Libvirtd::shared().uri, options).unwrap());
    let mut site = Site::on(libvirt.clone(), FakeHypervisor::new());
    let sqlite = pengx::store::Store::open(&site.database_url).unwrap();
    sqlite.migrate().unwrap();
    site.database_url = postgres::database();
    let app = site.start();
    app.storlink();
    let served = Served::new(&app.core);
    let client = TcpStream::connect(served.address).unwrap();
    let (one, other) = UnixStream::pair().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let file = std::fs::File::open("/etc/hostname").unwrap();
    let open: [OwnedFd; 6] = [client.into(), one.into(), other.into(), reader.into(), writer.into(), file.into()];
    libvirt.info().unwrap();
    sqlite.read(pengx::store::storlinks::all).unwrap();
    assert_eq!(app.store().read(pengx::store::storlinks::all).unwrap().len(), 1);

    let list = SystemRunner.run_quietly(&Command::new("ls", MINUTE).args(["-l", "/proc/self/fd"])).unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let shown = list.lines().filter_map(|line| line.split_once(" -> "));
    assert!(list.contains(" 0 -> /dev/null"), "{list}");
    for (fd, target) in shown.map(|(entry, target)| (entry.rsplit(' ').next().unwrap(), target)) {
        let fits = match fd {
            "0" => target == "/dev/null",
            "1" | "2" => target.starts_with("pipe:"),
            // The directory that it lists; and what whoever started the tests left open for everybody.
            _ => target.starts_with("/proc/") && target.ends_with("/fd") || was_given(fd, target),
        };
        assert!(fits, "{fd} -> {target}: {list}");
    }
    drop(open);
}

/// Whether the process that started this one has it too, under the same number.
fn was_given(fd: &str, target: &str) -> bool {
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero();
    read_link(format!("/proc/{parent}/fd/{fd}")).is_ok_and(|link| link.to_str() == Some(target))
}

/// Leaves a server none but the three descriptors that everybody has: what it is started with goes on to its helpers.
const CLEAN: [&str; 4] = [
    "bash",
    "-c",
    r#"for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -le 2 ] || eval "exec $fd>&-"; done; exec "$@""#,
    "bash",
];

/// A server with a template whose copy takes a while.
struct Copying {
    place: Place,
    server: Program,
    template: String,
}

impl Copying {
    /// `user` is whose the files are, other than the storlink's own where he is not the server's.
    fn new(user: &str, through: &[&str]) -> Self {
        let place = Place::new("fake:///", "");
        let block: Vec<u8> = (0..1 << 20).map(|i: u32| i.wrapping_mul(0x9e37_79b1).to_le_bytes()[3] | 1).collect();
        let image = template_image(&place, "raw");
        let mut file = std::fs::File::create(&image).unwrap();
        (0..DISK_MIB).for_each(|_| file.write_all(&block).unwrap());
        let whose = if user == "nobody" { place.store_dir().parent().unwrap().to_owned() } else { image.clone() };
        tool("chown", &["-R", user, whose.to_str().unwrap()]);
        tool("chmod", &["600", image.to_str().unwrap()]);
        let server = place.serve_through(&[&CLEAN, through].concat());
        add_storlink(&server, &place);
        let template = add_template(&server, "raw");
        Self { place, server, template }
    }

    /// Holds the copy where it is, and lets it go on after a look at its process.
    fn catch(&self, name: &str) -> (Held, String) {
        let body = vm_body(name, &self.template, "", "", "raw");
        let task = task_uri(&self.server.post_async("/vms/", &body));
        let mut held = None;
        wait_until("the copy runs", || {
            held = self.place.tool();
            Ok(held.is_some() && self.place.unfinished_bytes() > 1 << 20)
        });
        let held = Held(held.unwrap());
        kill_process(held.0, Signal::STOP).unwrap();
        (held, task)
    }

    fn assert_done(&self, held: Held, task: &str) {
        drop(held);
        let record = ended(&self.server, task);
        assert_eq!(record.element("state"), "success", "{record:?}");
        self.place.assert_at_rest();
    }

    /// The server's own network is another one.
    fn has_network(&self, held: &Held) -> bool {
        let namespace = |pid: u32| read_link(format!("/proc/{pid}/ns/net")).unwrap();
        namespace(held.0.as_raw_nonzero().get().unsigned_abs()) == namespace(self.server.pid())
    }

    fn warnings(&self) -> usize {
        self.server.log().matches("tools run with this host's network").count()
    }
}

/// A process that is stopped; it goes on in any case.
struct Held(Pid);

impl Held {
    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.as_raw_nonzero()))
    }

    fn limit(&self, name: &str) -> String {
        let limits = read_to_string(self.proc("limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{limits}"));
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    fn assert_limited(&self) {
        assert_eq!(self.limit("Max address space"), "8589934592 8589934592");
        let disk = DISK_MIB << 20;
        let most = disk + disk / 64 + (64 << 20);
        assert_eq!(self.limit("Max file size"), format!("{most} {most}"));
        assert_eq!(self.limit("Max open files"), "1024 1024");
        assert_eq!(self.limit("Max core file size"), "0 0");
    }

    /// What it opened itself, and three that it was given.
    fn assert_alone(&self, place: &Place) {
        for entry in std::fs::read_dir(self.proc("fd")).unwrap().flatten() {
            let target = read_link(entry.path()).unwrap();
            let fits = match entry.file_name().to_str().unwrap() {
                "0" => target.to_str() == Some("/dev/null"),
                "1" | "2" => target.to_str().unwrap().starts_with("pipe:"),
                _ => target.starts_with(place.store_dir()) || target.to_str().unwrap().starts_with("anon_inode:"),
            };
            assert!(fits, "{:?} is {}", entry.file_name(), target.display());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have been killed.
        if kill_process(self.0, Signal::CONT).is_err() {
            println!("{:?} is gone", self.0);
        }
    }
}

fn tool(program: &str, args: &[&str]) {
    let done = std::process::Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn assert_confined(user: &str, through: &[&str]) {
    let copying = Copying::new(user, through);
    let (held, task) = copying.catch("web1");
    held.assert_limited();
    held.assert_alone(&copying.place);
    assert!(!copying.has_network(&held));
    copying.assert_done(held, &task);
    assert_eq!(copying.warnings(), 0);

    // The next one dies with the server.
    let (held, _) = copying.catch("web2");
    copying.server.kill();
    wait_until("it is gone", || Ok(copying.place.tool().is_none()));
    drop(held);
    let server = copying.place.serve_through(&[&CLEAN, through].concat());
    copying.place.assert_at_rest();
    assert_eq!(server.get("/vms/").ids("vm").len(), 1);
    assert_eq!(copying.place.files().len(), 2);
}

#[test]
fn the_helpers_of_root_are_confined() {
    assert_confined("daemon", &["env"]);
}

/// The rights that the package's unit leaves its server. The template is another user's.
#[test]
fn the_helpers_of_the_packages_unit_are_confined() {
    let unit = include_str!("../../docs/packaging/pengx.service");
    let rights = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let rights = rights.to_lowercase().replace("cap_", "+").replace(' ', ",");
    let set = format!("--bounding-set=-all,{rights}");
    assert_confined("daemon", &["setpriv", "--no-new-privs", &set, "--"]);
}

#[test]
fn the_helpers_of_an_ordinary_user_are_confined() {
    assert_confined("nobody", &["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]);
}

#[test]
fn where_no_network_namespace_can_be_made_helpers_work_and_the_log_says_so_once() {
    // Root with a right to all files, and none to map users: a user namespace would take the files from it.
    let rights = "--bounding-set=-all,+dac_override,+fowner";
    let copying = Copying::new("daemon", &["setpriv", "--no-new-privs", rights, "--"]);
    for name in ["web1", "web2"] {
        let (held, task) = copying.catch(name);
        held.assert_limited();
        held.assert_alone(&copying.place);
        assert!(copying.has_network(&held));
        copying.assert_done(held, &task);
    }
    assert_eq!(copying.warnings(), 1, "{}", copying.server.log());
}
