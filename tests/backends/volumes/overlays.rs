//! Overlays: what is written down, what is copied up, and a header that changes alone.

use super::*;

fn layer(world: &World, volume: &VolumeName) -> Layer {
    Layer { source: VolumeSource::File(world.path(volume.as_str())), format: Format::Qcow2 }
}

/// A base of one MiB, and overlays of it or of one another: `&[0, 0]` are two on the base.
fn chain(world: &World, on: &[usize]) -> Vec<VolumeName> {
    let mut all = vec![volume()];
    let zeros = NewVolume { format: Format::Qcow2, size: MiB(1), content: Content::Zeros };
    world.create(&all[0], &zeros).unwrap();
    let mut chains = vec![vec![layer(world, &all[0])]];
    for on in on {
        let below = chains[*on].clone();
        let made = volume();
        let content = Content::Overlay(below.clone());
        world.create(&made, &NewVolume { format: Format::Qcow2, size: MiB(1), content }).unwrap();
        chains.push(std::iter::once(layer(world, &made)).chain(below).collect());
        all.push(made);
    }
    all
}

fn volume() -> VolumeName {
    VolumeName::new(DiskId(RandomIds.uuid()), Format::Qcow2)
}

fn io(world: &World, volume: &VolumeName, command: &str) -> bool {
    let mut io = std::process::Command::new("qemu-io");
    let done = io.args(["-f", "qcow2", "-c", command]).arg(world.path(volume.as_str())).output().unwrap();
    done.status.success() && !String::from_utf8_lossy(&done.stdout).contains("failed")
}

fn backing(world: &World, volume: &VolumeName) -> Option<PathBuf> {
    world.driver.layer(volume, Format::Qcow2).unwrap().backing.map(|(path, _)| path)
}

#[test]
fn only_the_header_changes_when_an_overlay_is_put_on_another_image() {
    let world = World::new();
    let [base, middle, top] = &chain(&world, &[0, 1])[..] else { panic!() };
    assert!(io(&world, base, "write -q -P 1 0 64k") && io(&world, middle, "write -q -P 2 64k 64k"));
    assert!(io(&world, top, "write -q -P 3 128k 64k"));
    let below = [layer(&world, middle), layer(&world, base)];
    let control = Control { cancel: &AtomicBool::new(false), progress: &|_| {} };
    world.driver.commit(middle, &below[1..], &control).unwrap();
    let before = fs::read(world.path(top.as_str())).unwrap();
    for _ in 0..2 {
        world.driver.reattach(top, &below[1..]).unwrap();
        assert_eq!(backing(&world, top), Some(world.path(base.as_str())));
        let after = fs::read(world.path(top.as_str())).unwrap();
        assert!(before[65_536..] == after[65_536..] && before.len() == after.len(), "all but the first cluster");
    }
    // Also when what it was on is gone.
    world.driver.remove(middle).unwrap();
    for (at, byte) in [("0", 1), ("64k", 2), ("128k", 3), ("192k", 0)] {
        assert!(io(&world, top, &format!("read -q -P {byte} {at} 64k")), "{at}");
    }
    assert_eq!(world.files().len(), 2);
}

#[test]
fn an_overlay_is_put_on_no_image_that_is_not_there_or_leads_elsewhere() {
    let world = World::new();
    let [base, middle, top, other] = &chain(&world, &[0, 1, 0])[..] else { panic!() };
    let before = fs::read(world.path(top.as_str())).unwrap();
    let missing = layer(&world, &volume());
    for below in [
        vec![missing.clone()],
        vec![layer(&world, other), missing],
        // Its own header says that it is on the base.
        vec![layer(&world, other)],
        vec![layer(&world, other), layer(&world, middle), layer(&world, base)],
        vec![],
    ] {
        world.driver.reattach(top, &below).unwrap_err();
        assert_eq!(fs::read(world.path(top.as_str())).unwrap(), before, "{below:?}");
    }
    let absent = world.driver.reattach(&volume(), &[layer(&world, base)]).unwrap_err();
    assert!(matches!(absent.kind(), ErrorKind::NotFound { .. }), "{absent:?}");
}
