use std::fs;
use std::io::Cursor;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::exec::{Command, Runner, SystemRunner};

fn qemu_img(args: &[&str]) {
    let run = || SystemRunner.run_quietly(&Command::new("qemu-img", Duration::from_secs(60)).args(args));
    let mut done = run();
    // It times its key derivation for LUKS, and gives up on a busy machine.
    for _ in 0..50 {
        match &done {
            Err(busy) if format!("{busy:?}").contains("accurate CPU usage") => done = run(),
            _ => break,
        }
    }
    done.unwrap();
}

fn verdict(bytes: &[u8], declared: Format) -> Result<u64, String> {
    read(&mut Cursor::new(bytes), declared, MAX_VIRTUAL_BYTES).map_err(|e| match e {
        HeaderError::Refused(why) => why,
        HeaderError::Io(e) => panic!("{e}"),
    })
}

/// What `qemu-img create` makes of these arguments, a 10 MiB image.
fn made(dir: &TempDir, args: &[&str]) -> Vec<u8> {
    let path = dir.path().join("made");
    let path = path.to_str().unwrap();
    qemu_img(&[&["create", "-q"], args, &[path, "10M"]].concat());
    fs::read(path).unwrap()
}

fn plain() -> Vec<u8> {
    made(&tempfile::tempdir().unwrap(), &["-f", "qcow2"])
}

fn patched(image: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

#[test]
fn self_contained_images_of_every_make_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let makes: &[&[&str]] = &[
        &["-f", "qcow2"],
        &["-f", "qcow2", "-o", "compat=0.10"],
        &["-f", "qcow2", "-o", "compression_type=zstd"],
        &["-f", "qcow2", "-o", "extended_l2=on"],
        &["-f", "qcow2", "-o", "preallocation=metadata"],
        &["-f", "qcow2", "-o", "cluster_size=512"],
        &["-f", "qcow2", "-o", "cluster_size=2M,refcount_bits=1,lazy_refcounts=on"],
    ];
    for args in makes {
        assert_eq!(verdict(&made(&dir, args), Format::Qcow2), Ok(10 << 20), "{args:?}");
    }
    let raw = made(&dir, &["-f", "raw"]);
    assert_eq!(verdict(&raw, Format::Raw), Ok(10 << 20));
    assert_eq!(verdict(&raw[..1000], Format::Raw), Ok(1000));
    // A guest's own boot sector is content.
    assert_eq!(verdict(b"\xeb\x63\x90 GRUB", Format::Raw), Ok(8));
    assert_eq!(
        verdict(&patched(&plain(), 79, &[1]), Format::Qcow2),
        Ok(10 << 20),
        "stale reference counts are sound data"
    );
}

#[test]
fn images_that_lead_elsewhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    qemu_img(&["create", "-q", "-f", "raw", &path("base"), "10M"]);

    let overlay = made(&dir, &["-f", "qcow2", "-b", &path("base"), "-F", "raw"]);
    let old_overlay = made(&dir, &["-f", "qcow2", "-o", "compat=0.10", "-b", &path("base"), "-F", "raw"]);
    let data_file = made(&dir, &["-f", "qcow2", "-o", &format!("data_file={},data_file_raw=on", path("data"))]);
    let secret = ["--object", "secret,id=s,data=abc", "-f", "qcow2", "-o"];
    let luks = made(&dir, &[&secret[..], &["encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]].concat());
    let aes = made(&dir, &[&secret[..], &["encrypt.format=aes,encrypt.key-secret=s"]].concat());
    qemu_img(&["create", "-q", "-f", "qcow2", &path("snap"), "10M"]);
    qemu_img(&["snapshot", "-c", "one", &path("snap")]);
    let snapshot = fs::read(path("snap")).unwrap();

    for (image, why) in [
        (&overlay, "has a backing file"),
        (&old_overlay, "has a backing file"),
        (&data_file, "keeps its data in another file"),
        (&luks, "is encrypted"),
        (&aes, "is encrypted"),
        (&snapshot, "holds 1 internal snapshots"),
        // Stripped of the fields that gave them away, the extensions still do.
        (&patched(&overlay, 8, &[0; 12]), "names the format of a backing file"),
        (&patched(&data_file, 79, &[0]), "names another file for its data"),
        (&patched(&luks, 35, &[0]), "is encrypted"),
    ] {
        let said = verdict(image, Format::Qcow2).unwrap_err();
        assert!(said.starts_with(why), "{said}, not {why}");
    }
}

#[test]
fn another_format_than_the_declared_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let luks = ["--object", "secret,id=s,data=abc", "-f", "luks", "-o", "key-secret=s,iter-time=10"];
    let makes: &[(&[&str], &str)] = &[
        (&["-f", "qcow2"], "qcow2"),
        (&["-f", "qcow"], "qcow"),
        (&["-f", "qed"], "qed"),
        (&["-f", "vmdk"], "vmdk"),
        (&["-f", "vmdk", "-o", "subformat=monolithicFlat"], "vmdk"),
        (&["-f", "vdi"], "vdi"),
        (&["-f", "vhdx"], "vhdx"),
        (&["-f", "vpc", "-o", "subformat=dynamic"], "vhd"),
        (&["-f", "parallels"], "parallels"),
        (&luks, "luks"),
    ];
    for (args, name) in makes {
        let image = made(&dir, args);
        assert_eq!(verdict(&image, Format::Raw), Err(format!("is declared raw, but it is a {name} image")));
        if *name != "qcow2" {
            assert_eq!(verdict(&image, Format::Qcow2), Err(format!("is declared qcow2, but it is a {name} image")));
        }
    }
    let raw = verdict(&[0; 4096], Format::Qcow2);
    assert_eq!(raw, Err("is declared qcow2, but it is not one; perhaps it is raw".to_owned()));
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let image = plain();
    let be = |n: u64| n.to_be_bytes();
    for (at, bytes, why) in [
        (4, &4_u32.to_be_bytes()[..], "has qcow2 version 4"),
        (20, &8_u32.to_be_bytes(), "has clusters of 2^8 bytes"),
        (20, &22_u32.to_be_bytes(), "has clusters of 2^22 bytes"),
        (24, &be(0), "has a size of 0"),
        (24, &be(1 << 40), "has a first table of 1 entries for 1099511627776 bytes"),
        (24, &be(u64::MAX), "has a first table"),
        (36, &u32::MAX.to_be_bytes(), "has a first table of 4294967295 entries"),
        (40, &be(0), "has a table of 8 bytes at 0"),
        (40, &be(1), "has a table of 8 bytes at 1"),
        (40, &be(!0xffff), "has a table of 8 bytes at 18446744073709486080"),
        (48, &be(1 << 40), "has a table of 65536 bytes"),
        (56, &[0; 4], "has a reference count table of 0 bytes"),
        (56, &[255; 4], "has a reference count table of"),
        (72, &be(1 << 1), "is marked corrupt"),
        (72, &be(1 << 5), "needs features that are not known here (bits 0x20)"),
        (72, &be(1 << 63), "needs features"),
        (72, &be(1 << 3), "contradicts itself about its compression (type 0)"),
        (104, &[1], "contradicts itself about its compression (type 1)"),
        (96, &7_u32.to_be_bytes(), "has reference counts of 2^7 bits"),
        (100, &72_u32.to_be_bytes(), "has a header of 72 bytes"),
        (100, &u32::MAX.to_be_bytes(), "has a header of 4294967295 bytes"),
        (116, &u32::MAX.to_be_bytes(), "has a header extension of 4294967295 bytes"),
    ] {
        let said = verdict(&patched(&image, at, bytes), Format::Qcow2).unwrap_err();
        assert!(said.starts_with(why), "{said}, not {why}");
    }
    for (len, why) in
        [(0, "is empty"), (4, "ends inside"), (71, "ends inside"), (103, "ends inside"), (65_536, "has a table")]
    {
        let said = verdict(&image[..len], Format::Qcow2).unwrap_err();
        assert!(said.starts_with(why), "{said}, not {why}");
    }
    assert!(verdict(&[], Format::Raw).is_err());
}

#[test]
fn the_caller_may_set_a_lower_limit() {
    let image = plain();
    let with = |limit| read(&mut Cursor::new(&image), Format::Qcow2, limit);
    assert_eq!(with(10 << 20).unwrap(), 10 << 20);
    let Err(HeaderError::Refused(why)) = with((10 << 20) - 1) else { panic!() };
    assert_eq!(why, "has a size of 10485760 bytes; at most 10485759 are allowed");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096), version in 0_u8..5) {
        let declared_raw = verdict(&bytes, Format::Raw);
        prop_assert!(declared_raw.is_err() || declared_raw == Ok(u64::try_from(bytes.len()).unwrap()));
        prop_assert!(verdict(&bytes, Format::Qcow2).is_err() || bytes.starts_with(QCOW2_MAGIC));
        let mut posing = [QCOW2_MAGIC, &[0, 0, 0, version]].concat();
        posing.extend(bytes);
        prop_assert!(verdict(&posing, Format::Raw).is_err());
        verdict(&posing, Format::Qcow2).ok();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is accepted, qemu-img itself finds nothing outside it.
    #[test]
    fn no_change_of_a_header_smuggles_another_file_in(
        overlay in any::<bool>(),
        changes in proptest::collection::vec((0_usize..400, prop_oneof![Just(0_u8), Just(0xff), any::<u8>()]), 0..12),
        backing in proptest::option::of((0_u64..1024, 0_u32..64)),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::write(&base, [0; 512]).unwrap();
        let args = ["-f", "qcow2", "-b", base.to_str().unwrap(), "-F", "raw"];
        let mut image = made(&dir, if overlay { &args } else { &args[..2] });
        for (at, byte) in changes {
            image[at] = byte;
        }
        if let Some((offset, length)) = backing {
            image[8..16].copy_from_slice(&offset.to_be_bytes());
            image[16..20].copy_from_slice(&length.to_be_bytes());
        }
        if verdict(&image, Format::Qcow2).is_ok() {
            prop_assert_eq!(&image[8..20], &[0; 12]);
            let path = dir.path().join("changed");
            fs::write(&path, &image).unwrap();
            let info = Command::new("qemu-img", Duration::from_secs(60))
                .args(["info", "-f", "qcow2", "--output=json", path.to_str().unwrap()]);
            // It may find fault with what we let pass; it may not find another file.
            if let Ok(said) = SystemRunner.run_quietly(&info) {
                let said = String::from_utf8(said.stdout).unwrap();
                prop_assert!(!said.contains("backing") && !said.contains("data-file\""), "{}", said);
            }
        }
    }
}
