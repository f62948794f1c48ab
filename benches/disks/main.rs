//! What copies, moves, backups and snapshots of a 4 GiB disk cost, beside plain `qemu-img convert` on the same files in the
//! same run; and for how long a guest stands still meanwhile.
//!
//! The program itself on a private libvirtd with real QEMU (emulated, so its guest takes a core of its own), storlinks on the
//! disk that holds `target/`.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on has failed"
)]

#[path = "../../tests/harness/counters.rs"]
#[allow(dead_code, reason = "the tests judge what was counted as well")]
mod counters;
#[path = "../../tests/harness/libvirt.rs"]
#[allow(dead_code, reason = "the tests stop and restart it as well")]
mod libvirt;
mod pauses;
mod server;
#[path = "../../tests/harness/tool.rs"]
#[allow(dead_code, reason = "the tests run more")]
mod tool;
#[path = "../../tests/harness/wait.rs"]
#[allow(dead_code, reason = "the tests wait for more")]
mod wait;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use counters::Counter;
use libvirt::Libvirtd;
use pauses::Pauses;
use pengx::model::Format;
use server::Server;
use tool::qemu_img;

/// The disk that is copied.
const MIB: u64 = 4096;
/// Where the guest counts, at the beginning of the disk.
const COUNTED: u64 = 64;
/// The middle of so many snapshots.
const SNAPSHOTS: usize = 5;

/// Those that come in turns.
type Flags<'a> = [Vec<&'a str>];

/// The best of so many rounds, of plain `qemu-img` and of pengx in turns.
const ROUNDS: usize = 3;

fn main() {
    let bench = Bench::new();
    println!(
        "a disk of {MIB} MiB: half random, a quarter text, a quarter zeros; {} cores; s, MiB/s",
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    );
    let vm = bench.vm("big", MIB);
    bench.fill(&vm);
    let convert = bench.best_flags(&vm, &[&["-t", "none"], &["-t", "none", "-T", "none"], &["-t", "writeback"]], &[]);
    let zstd = ["-c", "-o", "compression_type=zstd"];
    let zstd = bench.best_flags(&vm, &[&["-t", "none"], &["-t", "none", "-T", "none"]], &zstd);
    println!("\n{:<36} {:>14} {:>14} {:>12}", "", "qemu-img", "pengx", "of qemu-img");
    let before = bench.server.memory();
    copies(&bench, &vm, &convert, &zstd, "off", &|act| act());
    snapshots(&bench, &vm, "off");

    // It boots from its first disk and counts there, while the second one is what takes the time.
    bench.post(&format!("/vms/{vm}/start/"), "", 200);
    let pauses = Pauses::watch(&bench.libvirtd.uri);
    let felt = |act: &dyn Fn()| {
        let before = bench.counter(&vm).until_past(0);
        pauses.since();
        act();
        let still = pauses.since();
        let after = bench.counter(&vm).until_past(before);
        let gap = bench.counter(&vm).so_far().unwrap().longest_gap(before..after);
        println!("{:>79}", format!("{still}; between two of its numbers {gap} ms at most"));
    };
    copies(&bench, &vm, &convert, &zstd, "the guest runs", &felt);
    felt(&|| snapshots(&bench, &vm, "the guest runs"));
    bench.post(&format!("/vms/{vm}/poweroff/"), "", 200);
    let after = bench.server.memory();
    println!("\nthe server's memory in MB, now and at its highest: {before:?} before, {after:?} after");
}

fn copies(bench: &Bench, vm: &str, convert: &Flags<'_>, zstd: &Flags<'_>, how: &str, felt: &dyn Fn(&dyn Fn())) {
    bench.beside(vm, &format!("copy, {how}"), convert, felt, &|| bench.copy(vm, "copied"), &|| bench.delete("copied"));
    bench.beside(vm, &format!("backup, {how}"), zstd, felt, &|| bench.backup(vm), &|| bench.delete_backups(vm));
    let (there, back) = (|| bench.smigrate(vm, 2), || bench.smigrate(vm, 1));
    bench.beside(vm, &format!("smigrate, {how}"), convert, felt, &there, &back);
}

/// Of the large disk and of a small one: the same, if it does not depend on the size.
fn snapshots(bench: &Bench, large: &str, how: &str) {
    let small = bench.vm("small", 64);
    if how != "off" {
        bench.post(&format!("/vms/{small}/start/"), "", 200);
        bench.counter(&small).until_past(0);
    }
    for (vm, size) in [(large, MIB), (small.as_str(), 64)] {
        let (mut taken, mut deleted) = (Vec::new(), Vec::new());
        for n in 0..SNAPSHOTS {
            let body = format!("<snapshot><name>s{n}</name><storlink>1</storlink></snapshot>");
            let began = Instant::now();
            let made = bench.post(&format!("/vms/{vm}/snapshots/"), &body, 201);
            taken.push(began.elapsed());
            let id = made.split("id=\"").nth(1).unwrap().split('"').next().unwrap();
            let began = Instant::now();
            bench.server.ask("DELETE", &format!("/vms/{vm}/snapshots/{id}/"), "", 204);
            deleted.push(began.elapsed());
        }
        taken.sort();
        deleted.sort();
        let middle = SNAPSHOTS / 2;
        println!(
            "snapshot of a VM with {size:>4} MiB, {how}: taken in {:.0} ms, deleted in {:.0} ms",
            taken[middle].as_secs_f64() * 1e3,
            deleted[middle].as_secs_f64() * 1e3
        );
    }
    if how != "off" {
        bench.post(&format!("/vms/{small}/poweroff/"), "", 200);
    }
    bench.delete("small");
}

struct Bench {
    /// First, so that it ends before what it uses.
    server: Server,
    libvirtd: Libvirtd,
    dir: tempfile::TempDir,
    template: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("disks").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let libvirtd = Libvirtd::start("bench");
        let server = Server::start(dir.path(), &libvirtd.uri);
        for (n, name) in ["one", "two"].into_iter().enumerate() {
            let link = dir.path().join(name);
            std::fs::create_dir(&link).unwrap();
            let body = format!(
                "<storlink><name>{name}</name><link>{}</link><type>LO</type><level>FL</level></storlink>",
                link.display()
            );
            server.ask("POST", "/storlinks/create/", &body, 201);
            assert!(server.ask("GET", "/storlinks/", "", 200).contains(&format!("id=\"{}\"", n + 1)));
        }
        let disk = uuid::Uuid::new_v4();
        std::fs::copy(golden(), dir.path().join("one").join(format!("{disk}.qcow2"))).unwrap();
        let body = format!(
            "<template><name>golden</name><os>OTHER</os><os_arch>X64</os_arch><disk><storlink>1</storlink>\
             <uuid>{disk}</uuid><format>qcow2</format></disk></template>"
        );
        server.ask("POST", "/templates/add/", &body, 201);
        let templates = server.ask("GET", "/templates/", "", 200);
        let template = templates.split("id=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        Self { server, libvirtd, dir, template }
    }

    fn post(&self, uri: &str, body: &str, status: u16) -> String {
        self.server.ask("POST", uri, body, status)
    }

    fn vm(&self, name: &str, extra: u64) -> String {
        let body = format!(
            "<vm><name>{name}</name><template>{}</template><storlink>1</storlink><cpu_core>1</cpu_core>\
             <memory>128</memory><extra_disk_size>{extra}</extra_disk_size></vm>",
            self.template
        );
        self.post("/vms/", &body, 201);
        self.id(name)
    }

    fn id(&self, name: &str) -> String {
        let list = self.server.ask("GET", "/vms/", "", 200);
        let before = list.split(&format!("<name>{name}</name>")).next().unwrap();
        before.rsplit("<vm id='").next().unwrap().split('\'').next().unwrap().to_owned()
    }

    /// Fills the extra disk of a VM that is off.
    fn fill(&self, vm: &str) {
        let raw = self.dir.path().join("data.raw");
        write_data(&raw);
        let disk = self.image(vm, 1);
        qemu_img(&["convert", "-n", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), disk.to_str().unwrap()]);
        std::fs::remove_file(raw).unwrap();
    }

    fn image(&self, vm: &str, order: usize) -> PathBuf {
        let list = self.libvirtd.virsh(&["domblklist", vm]);
        let images = list.lines().filter_map(|line| line.split_whitespace().nth(1)).filter(|image| *image != "-");
        PathBuf::from(images.collect::<Vec<_>>()[order])
    }

    /// The fastest two of these, in order of clusters or not, with what all have: one storage is not as fast at all times.
    fn best_flags<'a>(&self, vm: &str, tries: &[&[&'a str]], all: &[&'a str]) -> Vec<Vec<&'a str>> {
        let mut tried = Vec::new();
        for flags in tries {
            for order in [&[][..], &["-W", "-m", "16"]] {
                let flags = [flags, order, all].concat();
                let took = (0..2).map(|_| self.convert(vm, &flags)).min().unwrap();
                println!("{:<64} {}", format!("qemu-img convert {}", flags.join(" ")), figures(took));
                tried.push((took, flags));
            }
        }
        tried.sort();
        tried.into_iter().take(2).map(|(_, flags)| flags).collect()
    }

    /// What plain `qemu-img` takes for the second disk, brought to the disk.
    fn convert(&self, vm: &str, flags: &[&str]) -> Duration {
        let (from, to) = (self.image(vm, 1), self.dir.path().join("two").join("beside"));
        self.cool(vm);
        let began = Instant::now();
        let files = [from.to_str().unwrap(), to.to_str().unwrap()];
        qemu_img(&[&["convert", "-U", "-f", "qcow2", "-O", "qcow2"], flags, &files].concat());
        std::fs::File::open(&to).unwrap().sync_all().unwrap();
        let took = began.elapsed();
        std::fs::remove_file(to).unwrap();
        took
    }

    /// Nothing waits to be written, and the page cache has forgotten the second disk.
    fn cool(&self, vm: &str) {
        rustix::fs::sync();
        let image = std::fs::File::open(self.image(vm, 1)).unwrap();
        rustix::fs::fadvise(image, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }

    /// Plain `qemu-img` with each of the flags, and pengx, in turns, under the same load.
    fn beside(
        &self,
        vm: &str,
        what: &str,
        flags: &Flags<'_>,
        felt: &dyn Fn(&dyn Fn()),
        act: &dyn Fn(),
        undo: &dyn Fn(),
    ) {
        let mut best = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            for flags in flags {
                best.0 = best.0.min(self.convert(vm, flags));
            }
            self.cool(vm);
            let took = std::cell::Cell::new(Duration::MAX);
            felt(&|| {
                let began = Instant::now();
                act();
                took.set(began.elapsed());
            });
            best.1 = best.1.min(took.get());
            undo();
        }
        let of = best.0.as_secs_f64() / best.1.as_secs_f64();
        println!("{what:<36} {:>14} {:>14} {of:>12.2}", figures(best.0), figures(best.1));
    }

    fn delete_backups(&self, vm: &str) {
        let list = self.server.ask("GET", &format!("/vms/{vm}/backups/"), "", 200);
        for id in list.split("<vmbackup id=").skip(1).map(|rest| &rest[1..37]) {
            self.server.ask("DELETE", &format!("/vms/{vm}/backups/{id}/"), "", 204);
        }
    }

    fn copy(&self, vm: &str, name: &str) {
        self.post(&format!("/vms/{vm}/copy/"), &format!("<vm><name>{name}</name><storlink>2</storlink></vm>"), 201);
    }

    fn backup(&self, vm: &str) {
        let body = "<backup><backup_name>b</backup_name><storlink>2</storlink></backup>";
        self.post(&format!("/vms/{vm}/backups/"), body, 200);
    }

    fn smigrate(&self, vm: &str, to: u32) {
        self.post(&format!("/vms/{vm}/smigrate/"), &format!("<vm><storlink>{to}</storlink></vm>"), 201);
    }

    fn delete(&self, name: &str) {
        self.server.ask("DELETE", &format!("/vms/{}/", self.id(name)), "", 204);
    }

    /// Where its guest counts, every 20 ms.
    fn counter(&self, vm: &str) -> Counter {
        Counter::system(self.image(vm, 0), Format::Qcow2)
    }
}

fn figures(took: Duration) -> String {
    format!("{:>6.2} {:>7.0}", took.as_secs_f64(), MIB as f64 / took.as_secs_f64())
}

fn golden() -> PathBuf {
    let image = std::env::var_os("PENGX_LAB_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab"), PathBuf::from)
        .join("golden.qcow2");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/build-guest.sh");
    assert!(Command::new(script).arg("-o").arg(&image).status().unwrap().success());
    image
}

/// Half of it random, a quarter text, a quarter zeros, in turns of a MiB; blank where the guest counts.
fn write_data(path: &Path) {
    let mut file = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let text: Vec<u8> =
        b"the quick brown fox jumps over the lazy dog; ".iter().copied().cycle().take(1 << 20).collect();
    let mut random = vec![0_u8; 1 << 20];
    for mib in 0..MIB {
        match mib % 4 {
            _ if mib < COUNTED => file.write_all(&[0; 1 << 20]).unwrap(),
            0 | 1 => {
                for word in random.chunks_exact_mut(8) {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    word.copy_from_slice(&state.to_le_bytes());
                }
                file.write_all(&random).unwrap();
            }
            2 => file.write_all(&text).unwrap(),
            _ => file.write_all(&[0; 1 << 20]).unwrap(),
        }
    }
    file.into_inner().unwrap().sync_all().unwrap();
}
