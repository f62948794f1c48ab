//! Disks and NICs in the words of `xl`, for a configuration file and for the command line alike. Pure.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{CacheMode, DiskSpec, Format, Layer, Mac, NicLink, NicSpec, VolumeSource};

use super::{BY, Kind};

const EMULATED_NICS: usize = 4;

/// The place of the CD-ROM drive of an HVM guest. Its number is the same as that of `xvdd`, so no disk is there.
pub(super) const DRIVE: &str = "hdd";
const DRIVE_PLACE: u32 = 3;
/// The one disc of a PV or PVH guest is a disk that nobody writes to, behind all others.
pub(super) const PV_DISC: &str = "xvdp";
/// Guests know `xvda` to `xvdp` by numbers that are as old as Xen, and one of them is for the disc.
pub(super) const MAX_DISKS: u32 = 15;

/// What a guest calls the disk of this order.
pub(super) fn place(kind: Kind, order: u32) -> String {
    let number = if kind == Kind::Hvm && order >= DRIVE_PLACE { order + 1 } else { order };
    let letter = u8::try_from(number).ok().and_then(|number| b'a'.checked_add(number)).filter(u8::is_ascii_lowercase);
    letter.map_or_else(|| format!("order-{order}"), |letter| format!("xvd{}", char::from(letter)))
}

/// As Xen counts places: `202 << 8` is `xvda`, and each disk has room for 15 partitions.
pub(super) fn number(place: &str) -> Option<u32> {
    let [letter] = place.strip_prefix("xvd")?.as_bytes() else { return None };
    letter.checked_sub(b'a').map(|n| (202 << 8) + 16 * u32::from(n))
}

/// The order of the disk that is there; `None`: no disk of ours is.
pub(super) fn order(kind: Kind, vdev: &str) -> Option<u32> {
    (0..MAX_DISKS).find(|order| place(kind, *order) == vdev)
}

const QDISK: &str = "backendtype=qdisk";

/// Refused for a path that cannot be said. The cache mode is not Xen's to choose: QEMU as Debian builds it for Xen has no
/// asynchronous I/O of the kernel's, and asked for O_DIRECT it does not start; a guest's flushes reach the disk all the same.
pub(super) fn disk(kind: Kind, disk: &DiskSpec) -> Result<String> {
    if disk.order >= MAX_DISKS {
        return Err(Error::invalid("disks", format!("must be at most {MAX_DISKS}")));
    }
    let VolumeSource::File(file) = &disk.source;
    let target = target(kind, file)?;
    let place = place(kind, disk.order);
    Ok(format!("format={},{},vdev={place},access=rw,target={target}", disk.format, backend(disk.format, file)))
}

/// The kernel serves a block device, QEMU all else. Left to itself Xen would put a loop device under a raw file, through a
/// script that fails over blanks and quotes.
pub(super) fn is_served_by_qemu(disk: &DiskSpec) -> bool {
    let VolumeSource::File(file) = &disk.source;
    backend(disk.format, file) == QDISK
}

fn backend(format: Format, file: &Path) -> &'static str {
    if format == Format::Raw && file.starts_with("/dev") { "backendtype=phy" } else { QDISK }
}

/// The drive of an HVM guest, with `blank` in it for no disc; a disc of another guest. `None`: it has none.
///
/// The drive is never empty: QEMU for Xen ends, and the guest's disks with it, when a disc is put into one that is.
pub(super) fn disc(kind: Kind, disc: Option<&VolumeSource>, blank: &Path) -> Result<Option<String>> {
    let (place, file) = match (kind, disc) {
        (Kind::Hvm, disc) => (DRIVE, disc.map_or(blank, |VolumeSource::File(file)| file)),
        (_, Some(VolumeSource::File(file))) => (PV_DISC, file.as_path()),
        (_, None) => return Ok(None),
    };
    let (backend, target) = (backend(Format::Raw, file), target(kind, file)?);
    Ok(Some(format!("format=raw,{backend},vdev={place},access=ro,devtype=cdrom,target={target}")))
}

/// A path as the last word of a disk. Everything up to the end belongs to it but a comma there; QEMU reads it up to the first
/// blank, and as a part of the command line of an HVM guest up to the first comma.
pub(super) fn target(kind: Kind, file: &Path) -> Result<&str> {
    let text = path(file)?;
    let comma = if kind == Kind::Hvm { text.contains(',') } else { text.ends_with(',') };
    if comma || text.chars().any(char::is_whitespace) {
        let why = format!("{text} cannot be given to a guest on Xen, for its blanks or commas: rename it");
        return Err(Error::refused(BY, why));
    }
    Ok(text)
}

/// An absolute path without control characters.
pub(super) fn path(file: &Path) -> Result<&str> {
    let text = file.to_str().filter(|text| text.starts_with('/') && !text.chars().any(char::is_control));
    text.ok_or_else(|| Error::invalid("path", format!("{} is no path that xl can be given", file.display())))
}

/// What [`disk`] or [`disc`] wrote.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParsedDisk {
    Disk(DiskSpec),
    Disc(Option<VolumeSource>),
}

pub(super) fn parse_disk(kind: Kind, words: &str, blank: &Path) -> Option<ParsedDisk> {
    let (words, target) = words.split_once("target=")?;
    let source = VolumeSource::File(PathBuf::from(target));
    let word = |key: &str| words.split(',').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    if word("devtype") == Some("cdrom") {
        return Some(ParsedDisk::Disc((Path::new(target) != blank).then_some(source)));
    }
    Some(ParsedDisk::Disk(DiskSpec {
        order: order(kind, word("vdev")?)?,
        source,
        format: word("format")?.parse().ok()?,
        cache: CacheMode::Writeback,
        backing: Vec::new(),
    }))
}

/// The words of a NIC, in a file joined by commas. Xen has no NIC without a bridge.
pub(super) fn nic(nic: &NicSpec) -> Result<Vec<String>> {
    let NicLink::Bridge(bridge) = &nic.link else {
        let what = "give a guest an interface without a bridge".to_owned();
        return Err(Error::new(ErrorKind::Unsupported { what, by: BY.to_owned() }));
    };
    if bridge.is_empty() || !bridge.bytes().all(|b| b.is_ascii_graphic() && !b",=\"'\\".contains(&b)) {
        return Err(Error::invalid("bridge", format!("{bridge:?} is no name of a bridge")));
    }
    Ok(vec![format!("mac={}", nic.mac), format!("bridge={bridge}")])
}

/// One more word for a NIC that an HVM guest starts with: until it has drivers for Xen it sees the first few. QEMU puts a ROM
/// beside each that it emulates, for which Xen gives a domain little memory, and with more QEMU does not start.
pub(super) fn adapter(kind: Kind, number: usize) -> Option<String> {
    let word = if number < EMULATED_NICS { "model=e1000" } else { "type=vif" };
    (kind == Kind::Hvm).then(|| word.to_owned())
}

pub(super) fn parse_nic(words: &str) -> Option<NicSpec> {
    let word = |key: &str| words.split(',').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let mac: Mac = word("mac")?.parse().ok()?;
    Some(NicSpec { mac, link: NicLink::Bridge(word("bridge")?.to_owned()) })
}

/// An image below a disk, which Xen need not know of: the order of the disk, and what it is.
pub(super) fn layer(order: u32, layer: &Layer) -> Result<String> {
    let VolumeSource::File(file) = &layer.source;
    Ok(format!("{order} {} {}", layer.format, path(file)?))
}

pub(super) fn parse_layer(words: &str) -> Option<(u32, Layer)> {
    let mut words = words.splitn(3, ' ');
    let order = words.next()?.parse().ok()?;
    let format: Format = words.next()?.parse().ok()?;
    Some((order, Layer { source: VolumeSource::File(PathBuf::from(words.next()?)), format }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_disk_has_a_place_of_its_own_and_the_drive_another() {
        assert_eq!([0, 2, 3, 14].map(|order| place(Kind::Pv, order)), ["xvda", "xvdc", "xvdd", "xvdo"]);
        assert_eq!([0, 2, 3, 14].map(|order| place(Kind::Hvm, order)), ["xvda", "xvdc", "xvde", "xvdp"]);
        for kind in [Kind::Hvm, Kind::Pv, Kind::Pvh] {
            for n in 0..MAX_DISKS {
                assert_eq!(order(kind, &place(kind, n)), Some(n));
            }
            assert_eq!(order(kind, &place(kind, 99)), None);
        }
        assert_eq!((order(Kind::Pv, PV_DISC), order(Kind::Hvm, "xvdd"), order(Kind::Pv, "sda")), (None, None, None));
    }

    #[test]
    fn paths_that_would_become_other_words_are_refused() {
        for (kind, file, fine) in [
            (Kind::Hvm, "/s/a.raw", true),
            (Kind::Hvm, "/s/it's\"1\"&설치=x:y.iso", true),
            (Kind::Pv, "/s/a b", false),
            (Kind::Hvm, "/s/a,readonly=on", false),
            (Kind::Pv, "/s/a,readonly=on", true),
            (Kind::Pv, "/s/a,", false),
            (Kind::Pv, "s/a", false),
            (Kind::Pv, "/s/a\nb", false),
            (Kind::Pv, "", false),
        ] {
            assert_eq!(target(kind, Path::new(file)).is_ok(), fine, "{file}");
        }
    }

    #[test]
    fn a_nic_needs_a_bridge() {
        let with = |link| nic(&NicSpec { mac: Mac([0, 0x16, 0x3e, 1, 2, 3]), link });
        assert_eq!(with(NicLink::Bridge("xenbr0".into())).unwrap().join(","), "mac=00:16:3e:01:02:03,bridge=xenbr0");
        assert!(with(NicLink::Bridge("a,script=/x".into())).is_err());
        let said = with(NicLink::Unplugged).unwrap_err().to_string();
        assert_eq!(said, "Xen cannot give a guest an interface without a bridge");
        assert_eq!(with(NicLink::User).unwrap_err().to_string(), said);
    }

    #[test]
    fn places_have_the_numbers_of_xen() {
        for (place, known) in [("xvda", Some(51712)), ("xvdb", Some(51728)), ("xvdp", Some(51952)), ("order-30", None)]
        {
            assert_eq!(number(place), known, "{place}");
        }
    }
}
