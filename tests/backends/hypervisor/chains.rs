//! The laws of overlays and block jobs. Guests are paused, so what a disk holds is known to the byte.

use std::process::Command;

use pengx::hypervisor::{BlockJob, BlockJobStatus};
use pengx::model::Layer;

use super::*;
use crate::harness::tool::qemu_img;
use crate::harness::wait::wait_until;

/// An image has so many units, each of one byte again and again.
const UNITS: usize = 4;
const UNIT: usize = 4 << 20;

/// Bytes per second. QEMU moves a piece, and then waits for hours.
const SLOW: u64 = 1;

pub(super) fn layer(file: PathBuf, format: Format) -> Layer {
    Layer { source: VolumeSource::File(file), format }
}

pub(super) fn file(image: &Layer) -> &Path {
    let VolumeSource::File(file) = &image.source;
    file
}

pub(super) fn name(image: &Layer) -> &str {
    file(image).to_str().unwrap()
}

/// One unit of an image that nobody uses.
pub(super) fn put(image: &Layer, unit: usize, byte: u8) {
    let write = format!("write -P {byte} {} {UNIT}", unit * UNIT);
    let done = Command::new("qemu-io").args(["-f", image.format.word(), "-c", &write, name(image)]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The units of what a chain shows from this image on, used or not.
#[track_caller]
pub(super) fn units(image: &Layer) -> [u8; UNITS] {
    let copy = tempfile::NamedTempFile::new().unwrap();
    let to = copy.path().to_str().unwrap();
    qemu_img(&["convert", "-U", "-f", image.format.word(), "-O", "raw", name(image), to]);
    let bytes = std::fs::read(copy.path()).unwrap();
    assert_eq!(bytes.len(), UNITS * UNIT);
    let mut units = [0; UNITS];
    for (unit, bytes) in units.iter_mut().zip(bytes.chunks(UNIT)) {
        *unit = bytes[0];
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a unit of {} is torn", name(image));
    }
    units
}

/// What its own header says that it is on: file and format.
pub(super) fn backing(image: &Layer) -> Option<(PathBuf, String)> {
    let info = qemu_img(&["info", "-U", "-f", image.format.word(), name(image)]);
    let line = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    Some((PathBuf::from(line("backing file: ")?), line("backing file format: ").unwrap_or_default()))
}

#[track_caller]
pub(super) fn assert_on(image: &Layer, below: Option<&Layer>) {
    let expected = below.map(|below| (file(below).to_owned(), below.format.word().to_owned()));
    assert_eq!(backing(image), expected, "what {} is on", name(image));
}

/// No image is damaged, and each header is on the next.
#[track_caller]
pub(super) fn assert_sound(chain: &[Layer]) {
    for (n, image) in chain.iter().enumerate() {
        if image.format == Format::Qcow2 {
            let checked = qemu_img(&["check", "-U", "-f", "qcow2", name(image)]);
            assert!(checked.contains("No errors were found"), "{}: {checked}", name(image));
            assert_on(image, chain.get(n + 1));
        }
    }
}

impl Bench {
    pub(super) fn blank(&self, format: Format) -> Layer {
        self.blank_in(self.dir.path(), format)
    }

    pub(super) fn blank_in(&self, dir: &Path, format: Format) -> Layer {
        let image = layer(dir.join(format!("{}.{}", Uuid::new_v4(), format.word())), format);
        let size = (UNITS * UNIT).to_string();
        qemu_img(&["create", "-q", "-f", format.word(), name(&image), &size]);
        image
    }

    /// As large as the other one.
    pub(super) fn blank_like(&self, other: &Layer, format: Format) -> Layer {
        let info = qemu_img(&["info", "-U", "-f", other.format.word(), name(other)]);
        let size = info.split_once(" (").and_then(|(_, rest)| rest.split_once(" bytes)")).expect("a size").0;
        let image = layer(self.dir.path().join(format!("{}.{}", Uuid::new_v4(), format.word())), format);
        qemu_img(&["create", "-q", "-f", format.word(), name(&image), size]);
        image
    }

    pub(super) fn overlay_on(&self, below: &Layer) -> Layer {
        let image = layer(self.dir.path().join(format!("{}.qcow2", Uuid::new_v4())), Format::Qcow2);
        qemu_img(&["create", "-q", "-f", "qcow2", "-b", name(below), "-F", below.format.word(), name(&image)]);
        image
    }

    /// So many images on one another, the one to write to first and the one that is raw last. The lowest holds 1 in unit 0,
    /// the next one 2 in unit 1, and so on.
    pub(super) fn stack(&self, images: u8) -> Vec<Layer> {
        let mut chain = vec![self.blank(Format::Raw)];
        put(&chain[0], 0, 1);
        for n in 1..images {
            let image = self.overlay_on(&chain[0]);
            put(&image, n.into(), n + 1);
            chain.insert(0, image);
        }
        chain
    }

    /// The same hypervisor, whose jobs stay in the middle until [`Bench::let_go`].
    pub(super) fn slow(&self) -> Arc<dyn Hypervisor> {
        if let Some(fake) = &self.fake {
            fake.hold_jobs(true);
            return Arc::clone(&self.hypervisor);
        }
        if self.xen {
            return Arc::new(xl::slow(self, SLOW));
        }
        Arc::new(connect_slowly(&Libvirtd::shared().uri))
    }

    pub(super) fn let_go(&self, vm: &Vm<'_>, target: &str) {
        match &self.fake {
            Some(fake) => fake.hold_jobs(false),
            None if self.xen => xl::let_go(vm, target),
            None => {
                Libvirtd::shared().virsh(&["blockjob", &vm.id.to_string(), target, "--bandwidth", "0"]);
            }
        }
    }
}

pub(super) fn connect_slowly(uri: &str) -> LibvirtHypervisor {
    let options = LibvirtOptions {
        call_timeout: Duration::from_secs(30),
        power_timeout: NEVER,
        block_timeout: NEVER,
        block_rate: SLOW,
        domain_type: DomainType::Qemu,
        ..LibvirtOptions::default()
    };
    LibvirtHypervisor::new(uri, options).unwrap()
}

pub(super) fn disk_on(order: u32, chain: &[Layer]) -> DiskSpec {
    let (leaf, backing) = chain.split_first().unwrap();
    DiskSpec { format: leaf.format, backing: backing.to_vec(), ..disk_spec(order, file(leaf)) }
}

pub(super) fn spec_on(chains: &[&[Layer]]) -> DomainSpec {
    let disks = (0..).zip(chains).map(|(order, chain)| disk_on(order, chain)).collect();
    DomainSpec { disks, ..spec(&[]) }
}

pub(super) fn sources(chain: &[Layer]) -> Vec<VolumeSource> {
    chain.iter().map(|layer| layer.source.clone()).collect()
}

pub(super) fn with<'a>(leaf: &'a Layer, below: impl IntoIterator<Item = &'a Layer>) -> Vec<Layer> {
    std::iter::once(leaf).chain(below).cloned().collect()
}

pub(super) fn commit(top: &Layer, base: &Layer) -> BlockJob {
    BlockJob::Commit { top: top.source.clone(), base: base.source.clone() }
}

pub(super) fn mirror(to: &Layer) -> BlockJob {
    BlockJob::Mirror { to: to.clone() }
}

impl Vm<'_> {
    #[track_caller]
    pub(super) fn assert_chain(&self, order: u32, chain: &[Layer]) {
        assert_eq!(self.hypervisor.chain(self.id, order).unwrap(), sources(chain));
    }

    pub(super) fn job(&self, order: u32) -> Option<BlockJobStatus> {
        let job = self.hypervisor.block_job(self.id, order).unwrap();
        assert!(job.is_none_or(|job| job.total > 0 && job.done <= job.total), "{job:?}");
        job
    }

    pub(super) fn until_ready(&self, order: u32) {
        wait_until("the job is ready", || {
            let job = self.job(order).expect("a job");
            Ok(job.ready)
        });
    }

    pub(super) fn until_over(&self, order: u32) {
        wait_until("the job is over", || {
            let job = self.job(order);
            assert!(!job.is_some_and(|job| job.ready), "it needs no pivot: {job:?}");
            Ok(job.is_none())
        });
    }

    /// In the middle, and does not get on.
    #[track_caller]
    pub(super) fn assert_halfway(&self, order: u32) {
        let job = self.job(order).expect("a job");
        assert!(!job.ready && job.done < job.total, "{job:?}");
    }
}

pub(super) fn a_disk_is_on_its_whole_chain(bench: &Bench) {
    let (chain, lone) = (bench.stack(3), bench.stack(1));
    let vm = bench.vm_with(&spec_on(&[&chain, &lone]));
    vm.start(Start::Paused);
    vm.assert_chain(0, &chain);
    vm.assert_chain(1, &lone);
    refused(bench.hypervisor.chain(vm.id, 2).map(drop));
    refused(bench.hypervisor.block_job(vm.id, 2).map(drop));
    refused(bench.hypervisor.start_block_job(vm.id, 2, &commit(&chain[0], &chain[1])));
    refused(bench.hypervisor.pivot(vm.id, 2));
    refused(bench.hypervisor.overlay_disks(vm.id, &[disk_on(2, &chain)]));
    let plugged = disk_on(2, &bench.stack(2));
    bench.hypervisor.attach_disk(vm.id, &plugged).unwrap();
    vm.assert_chain(2, &plugged.chain());
}

pub(super) fn a_missing_image_of_a_chain_is_named(bench: &Bench) {
    let chain = bench.stack(3);
    let vm = bench.vm_with(&spec_on(&[&chain]));
    let away = bench.dir.path().join("away");
    for missing in &chain {
        std::fs::rename(file(missing), &away).unwrap();
        let why = refused(bench.hypervisor.start(vm.id, Start::Paused));
        assert!(why.contains(name(missing)), "{why}");
        std::fs::rename(&away, file(missing)).unwrap();
    }
    vm.start(Start::Paused);
}

pub(super) fn a_backing_image_serves_many_and_nobody_writes_to_it(bench: &Bench) {
    let chain = bench.stack(2);
    let twin = with(&bench.overlay_on(&chain[1]), &chain[1..]);
    let on_leaf = with(&bench.overlay_on(&chain[0]), &chain);
    let (one, two) = (bench.vm_with(&spec_on(&[&chain])), bench.vm_with(&spec_on(&[&twin])));
    let (writer, reader) = (bench.vm_with(&spec_on(&[&chain[1..]])), bench.vm_with(&spec_on(&[&on_leaf])));
    one.start(Start::Paused);
    two.start(Start::Paused);
    for (other, image) in [(&writer, &chain[1]), (&reader, &chain[0])] {
        let why = refused(bench.hypervisor.start(other.id, Start::Paused));
        assert!(why.contains(name(image)), "{why}");
    }
    if bench.emulated {
        return unsupported(bench.hypervisor.start_block_job(one.id, 0, &commit(&chain[0], &chain[1])));
    }
    // Somebody else reads it, so nothing can be merged into it.
    refused(bench.hypervisor.start_block_job(one.id, 0, &commit(&chain[0], &chain[1])));
    one.assert_chain(0, &chain);
    bench.hypervisor.destroy(two.id).unwrap();
    bench.hypervisor.start_block_job(one.id, 0, &commit(&chain[0], &chain[1])).unwrap();
    one.until_ready(0);
    let why = refused(bench.hypervisor.start(two.id, Start::Paused));
    assert!(why.contains(name(&chain[1])), "{why}");
}

pub(super) fn all_disks_move_onto_overlays_or_none(bench: &Bench) {
    let (one, two, three) = (bench.stack(2), bench.stack(1), bench.stack(1));
    let disc = bench.disk();
    let spec = DomainSpec { disc: Some(VolumeSource::File(disc)), ..spec_on(&[&one, &two, &three]) };
    let vm = bench.vm_with(&spec);
    vm.start(Start::Paused);
    let (over_one, over_two) = (with(&bench.overlay_on(&one[0]), &one), with(&bench.overlay_on(&two[0]), &two));
    let overlays = [disk_on(0, &over_one), disk_on(1, &over_two)];
    let missing = [overlays[0].clone(), disk_on(1, &with(&layer(bench.dir.path().join("none"), Format::Qcow2), &two))];
    let why = refused(bench.hypervisor.overlay_disks(vm.id, &missing));
    assert!(why.contains("none"), "{why}");
    for (order, chain) in (0..).zip([&one, &two, &three]) {
        vm.assert_chain(order, chain);
    }
    bench.hypervisor.overlay_disks(vm.id, &overlays).unwrap();
    for (order, chain) in (0..).zip([&over_one, &over_two, &three]) {
        vm.assert_chain(order, chain);
    }
    // Whoever did not hear the answer looks at the chain.
    refused(bench.hypervisor.overlay_disks(vm.id, &overlays));
    bench.hypervisor.overlay_disks(vm.id, &[]).unwrap();
    assert_eq!(vm.state(), PowerState::Paused);
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!((units(&over_one[0]), units(&over_two[0])), ([1, 2, 0, 0], [1, 0, 0, 0]));
    assert_sound(&over_one);
}

pub(super) fn an_overlay_of_something_else_is_refused(bench: &Bench) {
    let (chain, other) = (bench.stack(2), bench.stack(1));
    let vm = bench.vm_with(&spec_on(&[&chain, &other]));
    vm.start(Start::Paused);
    let good = disk_on(1, &with(&bench.overlay_on(&other[0]), &other));
    let overlay = bench.overlay_on(&chain[0]);
    for below in [&chain[1..], &other[..], &chain[..1], &[]] {
        let overlays = [good.clone(), disk_on(0, &with(&overlay, below))];
        let why = refused(bench.hypervisor.overlay_disks(vm.id, &overlays));
        assert!(why.contains(name(&overlay)), "{why}");
        vm.assert_chain(0, &chain);
        vm.assert_chain(1, &other);
    }
}

pub(super) fn the_leaf_is_committed_and_the_guest_moves(bench: &Bench) {
    let chain = bench.stack(3);
    let vm = bench.vm_with(&spec_on(&[&chain]));
    vm.start(Start::Paused);
    bench.hypervisor.start_block_job(vm.id, 0, &commit(&chain[0], &chain[1])).unwrap();
    vm.until_ready(0);
    vm.assert_chain(0, &chain);
    bench.hypervisor.pivot(vm.id, 0).unwrap();
    vm.assert_chain(0, &chain[1..]);
    assert_eq!(vm.job(0), None);
    wrong_state(bench.hypervisor.pivot(vm.id, 0));
    // Nobody holds it any more.
    std::fs::remove_file(file(&chain[0])).unwrap();
    // And once more, down into the raw image.
    bench.hypervisor.start_block_job(vm.id, 0, &commit(&chain[1], &chain[2])).unwrap();
    vm.until_ready(0);
    bench.hypervisor.pivot(vm.id, 0).unwrap();
    vm.assert_chain(0, &chain[2..]);
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!(units(&chain[2]), [1, 2, 3, 0]);
}

pub(super) fn an_image_in_the_middle_is_committed(bench: &Bench) {
    let mut chain = bench.stack(4);
    let vm = bench.vm_with(&spec_on(&[&chain]));
    vm.start(Start::Paused);
    for _ in 0..2 {
        bench.hypervisor.start_block_job(vm.id, 0, &commit(&chain[1], &chain[2])).unwrap();
        vm.until_over(0);
        std::fs::remove_file(file(&chain.remove(1))).unwrap();
        vm.assert_chain(0, &chain);
        assert_sound(&chain);
    }
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!((chain.len(), units(&chain[0]), units(&chain[1])), (2, [1, 2, 3, 4], [1, 2, 3, 0]));
}

pub(super) fn a_disk_is_mirrored_elsewhere_and_the_guest_moves(bench: &Bench) {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut chain = bench.stack(3);
    let vm = bench.vm_with(&spec_on(&[&chain]));
    vm.start(Start::Paused);
    for format in [Format::Qcow2, Format::Raw, Format::Qcow2] {
        let to = bench.blank_in(elsewhere.path(), format);
        bench.hypervisor.start_block_job(vm.id, 0, &mirror(&to)).unwrap();
        vm.until_ready(0);
        vm.assert_chain(0, &chain);
        bench.hypervisor.pivot(vm.id, 0).unwrap();
        vm.assert_chain(0, std::slice::from_ref(&to));
        assert_eq!(vm.job(0), None);
        assert!(!is_held(bench, file(chain.last().unwrap())));
        chain = vec![to];
    }
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!(units(&chain[0]), [1, 2, 3, 0]);
    assert_sound(&chain);
}

pub(super) fn what_is_aborted_leaves_the_guest_where_it_is(bench: &Bench) {
    let chain = bench.stack(3);
    let vm = bench.vm_with(&spec_on(&[&chain]));
    let slow = bench.slow();
    vm.start(Start::Paused);
    let to = bench.blank(Format::Qcow2);
    let jobs = [mirror(&to), commit(&chain[0], &chain[1]), commit(&chain[1], &chain[2])];
    for job in &jobs {
        slow.start_block_job(vm.id, 0, job).unwrap();
        vm.assert_halfway(0);
        for _ in 0..2 {
            bench.hypervisor.abort_block_job(vm.id, 0).unwrap();
            assert_eq!(vm.job(0), None);
        }
        vm.assert_chain(0, &chain);
    }
    assert!(!is_held(bench, file(&to)), "nobody holds what was copied so far");
    // One that is ready can be taken back as well.
    slow.start_block_job(vm.id, 0, &mirror(&to)).unwrap();
    bench.let_go(&vm, "vda");
    vm.until_ready(0);
    bench.hypervisor.abort_block_job(vm.id, 0).unwrap();
    vm.assert_chain(0, &chain);
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!(units(&chain[0]), [1, 2, 3, 0]);
    assert_sound(&chain);
}

pub(super) fn a_disk_has_one_job_and_each_disk_its_own(bench: &Bench) {
    let (one, two) = (bench.stack(2), bench.stack(2));
    let vm = bench.vm_with(&spec_on(&[&one, &two]));
    let slow = bench.slow();
    vm.start(Start::Paused);
    let overlays =
        [disk_on(0, &with(&bench.overlay_on(&one[0]), &one)), disk_on(1, &with(&bench.overlay_on(&two[0]), &two))];
    for job in [mirror(&bench.blank(Format::Raw)), commit(&one[0], &one[1])] {
        slow.start_block_job(vm.id, 0, &job).unwrap();
        for second in [mirror(&bench.blank(Format::Raw)), commit(&one[0], &one[1])] {
            wrong_state(bench.hypervisor.start_block_job(vm.id, 0, &second));
        }
        wrong_state(bench.hypervisor.pivot(vm.id, 0));
        wrong_state(bench.hypervisor.overlay_disks(vm.id, &overlays));
        vm.assert_halfway(0);
        assert_eq!(vm.job(1), None);
        bench.hypervisor.abort_block_job(vm.id, 0).unwrap();
    }
    slow.start_block_job(vm.id, 0, &mirror(&bench.blank(Format::Raw))).unwrap();
    slow.start_block_job(vm.id, 1, &mirror(&bench.blank(Format::Raw))).unwrap();
    bench.let_go(&vm, "vdb");
    vm.until_ready(1);
    bench.hypervisor.pivot(vm.id, 1).unwrap();
    bench.hypervisor.abort_block_job(vm.id, 0).unwrap();
    vm.assert_chain(0, &one);
    bench.hypervisor.overlay_disks(vm.id, &overlays[..1]).unwrap();
}

pub(super) fn a_job_that_makes_no_sense_is_refused(bench: &Bench) {
    let chain = bench.stack(3);
    let vm = bench.vm_with(&spec_on(&[&chain]));
    vm.start(Start::Paused);
    let foreign = bench.blank(Format::Raw);
    let missing = layer(bench.dir.path().join("missing"), Format::Raw);
    for (job, named) in [
        (commit(&chain[0], &chain[2]), &chain[2]),
        (commit(&chain[1], &chain[0]), &chain[0]),
        (commit(&chain[0], &foreign), &foreign),
        (commit(&foreign, &chain[0]), &foreign),
        (mirror(&missing), &missing),
        (mirror(&chain[0]), &chain[0]),
        (mirror(&chain[2]), &chain[2]),
    ] {
        let why = refused(bench.hypervisor.start_block_job(vm.id, 0, &job));
        assert!(why.contains(name(named)), "{job:?}: {why}");
        assert_eq!(vm.job(0), None);
    }
    vm.assert_chain(0, &chain);
    wrong_state(bench.hypervisor.pivot(vm.id, 0));
    bench.hypervisor.destroy(vm.id).unwrap();
    assert_eq!(units(&chain[0]), [1, 2, 3, 0]);
}

pub(super) fn a_job_ends_with_its_guest(bench: &Bench) {
    let chain = bench.stack(3);
    let vm = bench.vm_with(&spec_on(&[&chain]));
    let slow = bench.slow();
    let to = bench.blank(Format::Raw);
    for job in [mirror(&to), commit(&chain[0], &chain[1]), commit(&chain[1], &chain[2])] {
        vm.start(Start::Paused);
        slow.start_block_job(vm.id, 0, &job).unwrap();
        vm.assert_halfway(0);
        bench.hypervisor.destroy(vm.id).unwrap();
        wrong_state(bench.hypervisor.block_job(vm.id, 0).map(drop));
        wrong_state(bench.hypervisor.pivot(vm.id, 0));
        bench.hypervisor.abort_block_job(vm.id, 0).unwrap();
        assert!(!is_held(bench, file(&to)));
        assert_eq!(units(&chain[0]), [1, 2, 3, 0]);
        vm.start(Start::Paused);
        assert_eq!(vm.job(0), None);
        vm.assert_chain(0, &chain);
        bench.hypervisor.destroy(vm.id).unwrap();
    }
}

pub(super) fn a_definition_does_not_move_a_running_guest(bench: &Bench) {
    let (chain, other) = (bench.stack(2), bench.stack(1));
    let mut spec = spec_on(&[&chain]);
    let vm = bench.vm_with(&spec);
    let slow = bench.slow();
    vm.start(Start::Paused);
    let overlay = with(&bench.overlay_on(&chain[0]), &chain);
    bench.hypervisor.overlay_disks(vm.id, &[disk_on(0, &overlay)]).unwrap();
    // The definition goes another way, also while a job is under way.
    spec.disks = vec![disk_on(0, &other)];
    bench.hypervisor.define(&spec).unwrap();
    vm.assert_chain(0, &overlay);
    slow.start_block_job(vm.id, 0, &commit(&overlay[0], &overlay[1])).unwrap();
    bench.hypervisor.define(&spec).unwrap();
    bench.let_go(&vm, "vda");
    vm.until_ready(0);
    bench.hypervisor.define(&spec).unwrap();
    bench.hypervisor.pivot(vm.id, 0).unwrap();
    vm.assert_chain(0, &chain);
    bench.hypervisor.define(&spec).unwrap();
    vm.assert_chain(0, &chain);
    bench.hypervisor.destroy(vm.id).unwrap();
    vm.start(Start::Paused);
    vm.assert_chain(0, &other);
    bench.hypervisor.destroy(vm.id).unwrap();
    bench.hypervisor.undefine(vm.id).unwrap();
    spec.disks = vec![disk_on(0, &chain)];
    bench.hypervisor.define(&spec).unwrap();
    vm.start(Start::Paused);
    vm.assert_chain(0, &chain);
}
