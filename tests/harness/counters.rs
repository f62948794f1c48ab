//! The numbers that the golden guest writes to its disks (`tests/lab/counter.c`), read back out of their images: none may
//! be missing, whatever was done to the disk.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::wait::{BOOT, wait_within};
use pengx::model::Format;

/// Where the area is on the golden image; on every other disk it is at the beginning.
const SYSTEM: u64 = 67_108_864;
/// Of an area: how long it is at most, its header, its first record.
const MOST: u64 = 32 << 20;
const HEADER: usize = 2048;
const RECORDS: usize = 4096;
const SECTOR: usize = 512;

/// One disk of a guest, as a place where it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    image: PathBuf,
    format: Format,
    at: u64,
}

/// The numbers of one disk, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// 1 unless the disk came to the guest when others had numbers already.
    pub first: u64,
    /// One less than the first: there is none yet.
    pub last: u64,
    /// When each was written; 0: it was filled in later.
    times: Vec<u64>,
    full: bool,
}

impl Counter {
    /// On a copy of the golden image.
    pub fn system(image: impl Into<PathBuf>, format: Format) -> Self {
        Self { image: image.into(), format, at: SYSTEM }
    }

    /// On any other disk; it has at least 16 MiB.
    pub fn extra(image: impl Into<PathBuf>, format: Format) -> Self {
        Self { image: image.into(), format, at: 0 }
    }

    /// What an image holds that nobody writes, or what is wrong with it.
    pub fn read(&self) -> Result<Count, String> {
        self.area(MOST).and_then(|area| whole(&area)).map_err(|why| format!("{}: {why}", self.image.display()))
    }

    /// The image, which nobody writes, holds exactly the numbers 1 to n; n.
    #[track_caller]
    pub fn numbers(&self) -> u64 {
        let count = self.read().unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(count.first, 1, "{}: the first number", self.image.display());
        count.last
    }

    /// What an image certainly holds that a guest goes on to write; now and then it cannot be read.
    pub fn so_far(&self) -> Option<Count> {
        begin(&self.area(MOST).ok()?).ok()
    }

    /// Waits until the guest has written a number greater than this one; the last it has written then.
    pub fn until_past(&self, number: u64) -> u64 {
        // The area's first number is 1 or greater: the awaited one is not behind this.
        let there = RECORDS as u64 + (number + 1) * SECTOR as u64;
        let past = |most| {
            let last = self.area(most).and_then(|area| begin(&area)).ok()?.last;
            (last > number).then_some(last)
        };
        let mut last = None;
        wait_within(BOOT, &format!("a number after {number} on {}", self.image.display()), || {
            last = past(there).and_then(|_| past(MOST));
            Ok(last.is_some())
        });
        last.unwrap()
    }

    /// The bytes of the area, so many at most, whether or not a guest writes them.
    fn area(&self, most: u64) -> Result<Vec<u8>, String> {
        let mut file = File::open(&self.image).map_err(|why| why.to_string())?;
        let mut bytes = Vec::new();
        let mut read = |mut file: File, at| {
            file.seek(SeekFrom::Start(at)).and_then(|_| file.take(most.min(MOST)).read_to_end(&mut bytes))
        };
        match self.format {
            Format::Raw => read(file, self.at),
            Format::Qcow2 => {
                let mut header = [0; 32];
                file.read_exact(&mut header).map_err(|why| format!("its header cannot be read: {why}"))?;
                let size = u64::from_be_bytes(header[24..].try_into().unwrap());
                let length = most.min(MOST).min(size.saturating_sub(self.at));
                if length == 0 { Ok(0) } else { read(converted(&self.image, self.at, length)?, 0) }
            }
        }
        .map_err(|why| why.to_string())?;
        if bytes.len() > RECORDS { Ok(bytes) } else { Err(format!("it has no area at byte {}", self.at)) }
    }
}

/// The disks of one guest, the first first (`vda`, `vdb`), as they were at one single moment; what they hold. Nobody writes
/// them. A disk has to have all numbers of the one before it but the very last.
pub fn at_one_moment(disks: &[Counter]) -> Result<Vec<Count>, String> {
    let counts: Vec<Count> = disks.iter().map(Counter::read).collect::<Result<_, _>>()?;
    for (count, disk) in counts.iter().zip(disks) {
        if count.full {
            return Err(format!("{}: it is full, its last number says nothing", disk.image.display()));
        }
    }
    for (n, pair) in counts.windows(2).enumerate() {
        // A number is begun when all disks have the one before it.
        if !(counts[0].last.saturating_sub(1)..=pair[0].last).contains(&pair[1].last) {
            let lasts: Vec<u64> = counts.iter().map(|count| count.last).collect();
            let image = disks[n + 1].image.display();
            return Err(format!("{image}: it is of another moment: the disks' last numbers are {lasts:?}"));
        }
    }
    Ok(counts)
}

impl Count {
    /// How many numbers were not written in their time, but when the disk came back to a guest that had counted on.
    pub fn filled_in(&self) -> usize {
        self.times.iter().filter(|time| **time == 0).count()
    }

    /// The longest time between two neighbours of these numbers, in whole ms of the guest's clock, which stands still while
    /// the guest is suspended. One life of the guest: another may begin later on its clock than this one ended.
    pub fn longest_gap(&self, numbers: Range<u64>) -> u64 {
        let times = (self.first..).zip(&self.times).filter(|(number, _)| numbers.contains(number));
        let times: Vec<u64> = times.map(|(_, time)| *time).collect();
        let gaps = times.windows(2).filter(|pair| pair[0] > 0).map(|pair| pair[1].saturating_sub(pair[0]));
        gaps.max().unwrap_or(0) / 1_000_000
    }
}

/// A part of an image of any chain, as a file without a name.
fn converted(image: &Path, at: u64, length: u64) -> Result<File, String> {
    let part = tempfile::NamedTempFile::new().unwrap();
    // A running guest holds a lock on its image. Commas in options are doubled.
    let name = image.to_str().unwrap().replace(',', ",,");
    let options = format!(
        "driver=raw,offset={at},size={length},file.driver=qcow2,file.file.driver=file,file.file.filename={name}"
    );
    let mut convert = Command::new("qemu-img");
    let done =
        convert.args(["convert", "-U", "-O", "raw", "--image-opts", &options]).arg(part.path()).output().unwrap();
    if done.status.success() {
        Ok(part.reopen().unwrap())
    } else {
        Err(format!("it cannot be read: {}", String::from_utf8_lossy(&done.stderr).trim()))
    }
}

/// What a sector of an area holds.
enum Sector {
    Blank,
    Record { number: u64, time: u64 },
    Other,
}

fn sector(bytes: &[u8]) -> Sector {
    if bytes == [0; SECTOR] {
        return Sector::Blank;
    }
    let words = || -> Option<(u64, u64)> {
        let mut words = str::from_utf8(bytes).ok()?.strip_prefix("PENGX-COUNT ")?.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    match words() {
        Some((number, time)) if bytes == record(number, time) => Sector::Record { number, time },
        _ => Sector::Other,
    }
}

fn header(first: u64) -> Vec<u8> {
    sealed(&format!("PENGX-AREA {first:012}"))
}

fn record(number: u64, time: u64) -> Vec<u8> {
    sealed(&format!("PENGX-COUNT {number:012} {time}"))
}

/// With its checksum, as long as a sector.
fn sealed(line: &str) -> Vec<u8> {
    let sum = line.bytes().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
    });
    format!("{:<511}\n", format!("{line} {sum:016x}")).into_bytes()
}

/// The numbers from the first on, as far as there is one after the other.
fn begin(area: &[u8]) -> Result<Count, String> {
    let found = &area[HEADER..HEADER + SECTOR];
    let text = String::from_utf8_lossy(found);
    let first = text.strip_prefix("PENGX-AREA ").and_then(|rest| rest.get(..12)?.parse().ok());
    let first = match first {
        Some(first) if first > 0 && header(first) == found => first,
        _ if area[HEADER..].chunks(SECTOR).all(|sector| sector == [0; SECTOR]) => {
            return Err("nobody has counted on it".to_owned());
        }
        _ => {
            let text = text.trim_end_matches(['\0', ' ', '\n']);
            return Err(format!("at byte {HEADER} of its area is no whole header, but {text:?}"));
        }
    };
    let records = area[RECORDS..].chunks_exact(SECTOR);
    let full = records.len();
    let times: Vec<u64> = (first..)
        .zip(records)
        .map_while(|(expected, bytes)| match sector(bytes) {
            Sector::Record { number, time } if number == expected => Some(time),
            _ => None,
        })
        .collect();
    Ok(Count { first, last: first + times.len() as u64 - 1, full: times.len() == full, times })
}

/// All numbers, if nothing else is there.
fn whole(area: &[u8]) -> Result<Count, String> {
    let count = begin(area)?;
    let next = count.last + 1;
    let rest = (count.first..).zip(area[RECORDS..].chunks_exact(SECTOR)).skip(count.times.len());
    for (expected, bytes) in rest {
        let byte = RECORDS as u64 + (expected - count.first) * SECTOR as u64;
        let place = format!("at byte {byte} of its area, where number {expected} belongs,");
        let text = String::from_utf8_lossy(bytes);
        return Err(match sector(bytes) {
            Sector::Blank => continue,
            Sector::Record { number, .. } if number == expected => {
                format!("the numbers {next} to {} are missing: it goes on with {number}", number - 1)
            }
            Sector::Record { number, .. } => format!("{place} is number {number}; the last in order is {}", count.last),
            Sector::Other => {
                format!("{place} is no whole record, but {:?}; the last in order is {}", text.trim_end(), count.last)
            }
        });
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    const MIB: usize = 1 << 20;

    /// An area of 1 MiB with these records.
    fn area_of(first: u64, records: &[(u64, u64)]) -> Vec<u8> {
        let mut area = vec![0; MIB];
        area[HEADER..][..SECTOR].copy_from_slice(&header(first));
        for (n, (number, time)) in records.iter().enumerate() {
            put(&mut area, n, &record(*number, *time));
        }
        area
    }

    fn put(area: &mut [u8], n: usize, sector: &[u8]) {
        area[RECORDS + n * SECTOR..][..SECTOR].copy_from_slice(sector);
    }

    /// An image of such an area, and how it is read.
    fn raw(dir: &Path, name: &str, area: &[u8]) -> Counter {
        let image = dir.join(name);
        std::fs::write(&image, area).unwrap();
        Counter::extra(image, Format::Raw)
    }

    #[test]
    fn numbers_are_read_with_their_times() {
        let ms = |n: u64| n * 1_000_000;
        let times =
            [(7, ms(500)), (8, ms(520)), (9, 0), (10, 0), (11, ms(900)), (12, ms(923)), (13, ms(1)), (14, ms(2))];
        let count = whole(&area_of(7, &times)).unwrap();
        assert_eq!((count.first, count.last, count.filled_in(), count.full), (7, 14, 2, false));
        let gaps = [0..100, 0..9, 8..12, 13..100, 14..100].map(|numbers| count.longest_gap(numbers));
        assert_eq!(gaps, [23, 20, 0, 1, 0], "neither what was filled in nor another life is a gap");
        let none = whole(&area_of(7, &[])).unwrap();
        assert_eq!((none.first, none.last), (7, 6));
    }

    #[test]
    fn what_is_wrong_is_said_exactly() {
        let good = area_of(1, &[(1, 10), (2, 20), (3, 30), (4, 40)]);
        assert_eq!(whole(&good).unwrap().last, 4);
        let wrong = |spoil: &dyn Fn(&mut Vec<u8>)| {
            let mut area = good.clone();
            spoil(&mut area);
            (whole(&area).unwrap_err(), begin(&area).map(|count| count.last))
        };
        let blank = [0; SECTOR];
        let (why, so_far) = wrong(&|area| [1, 2].iter().for_each(|n| put(area, *n, &blank)));
        assert_eq!((why.as_str(), so_far), ("the numbers 2 to 3 are missing: it goes on with 4", Ok(1)));
        let (why, so_far) = wrong(&|area| put(area, 0, &blank));
        assert_eq!((why.as_str(), so_far), ("the numbers 1 to 1 are missing: it goes on with 2", Ok(0)));
        let (why, _) = wrong(&|area| put(area, 3, &record(3, 30)));
        assert_eq!(why, "at byte 5632 of its area, where number 4 belongs, is number 3; the last in order is 3");
        let (why, _) = wrong(&|area| put(area, 9, &record(7, 70)));
        assert_eq!(why, "at byte 8704 of its area, where number 10 belongs, is number 7; the last in order is 4");
        // One bit of a number, of a time, of a checksum, of what it is filled up with; and of what was blank.
        for byte in [20, 25, 30, 200, 511, 4 * SECTOR + 77] {
            let (why, so_far) = wrong(&|area| area[RECORDS + byte] ^= 1);
            let number = byte / SECTOR + 1;
            assert!(why.contains(&format!("where number {number} belongs, is no whole record, but")), "{byte}: {why}");
            assert_eq!(so_far, Ok(number as u64 - 1));
        }
        let (why, _) = wrong(&|area| area[HEADER + 20] ^= 1);
        assert!(why.starts_with("at byte 2048 of its area is no whole header, but \"PENGX-AREA 0000"), "{why}");
        let (why, _) = wrong(&|area| area[..RECORDS + SECTOR].fill(0));
        assert_eq!(why, "at byte 2048 of its area is no whole header, but \"\"");
        let (why, _) = wrong(&|area| area[HEADER..].fill(0));
        assert_eq!(why, "nobody has counted on it");
    }

    #[test]
    fn disks_of_one_moment_differ_by_one_number() {
        let dir = tempfile::tempdir().unwrap();
        let disk = |name: &str, first: u64, last: u64| {
            let records: Vec<_> = (first..=last).map(|n| (n, n)).collect();
            raw(dir.path(), name, &area_of(first, &records))
        };
        let moment = |lasts: &[u64]| {
            let disks: Vec<_> = lasts.iter().enumerate().map(|(n, last)| disk(&format!("{n}"), 3, *last)).collect();
            at_one_moment(&disks).map(|counts| counts.len())
        };
        for lasts in [&[9, 9, 9][..], &[9, 9, 8], &[9, 8, 8], &[2, 2], &[9]] {
            assert_eq!(moment(lasts), Ok(lasts.len()), "{lasts:?}");
        }
        for (lasts, which) in [(&[9, 7][..], 1), (&[8, 9], 1), (&[9, 8, 9], 2), (&[9, 8, 7], 2)] {
            let why = moment(lasts).unwrap_err();
            assert!(
                why.ends_with(&format!("/{which}: it is of another moment: the disks' last numbers are {lasts:?}")),
                "{why}"
            );
        }
        let full: Vec<_> = (1..=(MIB - RECORDS) as u64 / SECTOR as u64).map(|n| (n, n)).collect();
        let full = raw(dir.path(), "full", &area_of(1, &full));
        assert_eq!(full.numbers(), 2040);
        assert!(at_one_moment(&[full]).unwrap_err().contains("it is full"));
    }

    #[test]
    fn every_form_of_image_is_read() {
        let dir = tempfile::Builder::new().prefix("a,b").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let system = |area: &[u8]| {
            let mut file = File::create(path("raw")).unwrap();
            file.seek(SeekFrom::Start(SYSTEM)).unwrap();
            std::io::Write::write_all(&mut file, area).unwrap();
        };
        system(&area_of(1, &[(1, 1), (2, 2)]));
        super::super::tool::qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &path("raw"), &path("base")]);
        assert_eq!(Counter::system(path("base"), Format::Qcow2).numbers(), 2);
        system(&area_of(1, &[(1, 1), (2, 2), (3, 3)]));
        let overlay = ["-O", "qcow2", "-B", &path("base"), "-F", "qcow2", &path("raw"), &path("overlay")];
        super::super::tool::qemu_img(&[&["convert", "-f", "raw"], &overlay[..]].concat());
        for (name, format, last) in [("base", Format::Qcow2, 2), ("overlay", Format::Qcow2, 3), ("raw", Format::Raw, 3)]
        {
            let counter = Counter::system(path(name), format);
            assert_eq!((counter.numbers(), counter.so_far().unwrap().last), (last, last), "{name}");
        }
        for format in [Format::Qcow2, Format::Raw] {
            let name = format!("small.{}", format.word());
            super::super::tool::qemu_img(&["create", "-q", "-f", format.word(), &path(&name), "16M"]);
            let why = Counter::system(path(&name), format).read().unwrap_err();
            assert!(why.ends_with("it has no area at byte 67108864"), "{why}");
            let blank = Counter::extra(path(&name), format);
            assert!(blank.read().unwrap_err().ends_with("nobody has counted on it"));
            assert_eq!(blank.so_far(), None);
        }
        std::fs::remove_file(path("base")).unwrap();
        let why = Counter::system(path("overlay"), Format::Qcow2).read().unwrap_err();
        assert!(why.contains("it cannot be read: qemu-img: Could not open"), "{why}");
    }
}
