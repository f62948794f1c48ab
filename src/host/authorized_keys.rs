//! The file that lets the other hosts of the site in, to bring a migration and for nothing else.
//!
//! Law: our lines stand between two markers and are replaced as a whole; every other byte of the file stays as it is. The
//! file is new or old, never in between: it is written beside, brought to the disk and renamed. What sshd would not trust
//! (`StrictModes`) is refused rather than written: a link in place of the file, a file of somebody else, a directory that
//! others may write to.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::model::{PmId, SshKey};
use crate::patience::within;

/// A home directory may be on a mount that is dead.
const PATIENCE: Duration = Duration::from_secs(15);

/// sshd does not read further than lines of a few kB; a file of this size is something else.
const MAX_BYTES: u64 = 16 << 20;

const BEGIN: &str = "# BEGIN pengx: hosts of the site; what is between these two lines is replaced";
const END: &str = "# END pengx";

/// All that such a key may do.
const COMMAND: &str = "/usr/bin/pengx migration-receive";

/// Puts the keys of these hosts into the file, and no other key of a host. Makes the file, for its owner alone, and its
/// directory, if they are not there.
///
/// # Errors
/// `Refused`, with nothing changed, where the file or its directory is not what sshd would trust, or cannot be written;
/// `Unavailable` if the file system does not answer. Blocks for some seconds at most.
pub fn write(path: &Path, keys: &[(PmId, SshKey)]) -> Result<()> {
    let (of_thread, block) = (path.to_owned(), block(keys));
    let dir = path.parent().unwrap_or(Path::new("/"));
    within(PATIENCE, dir, move || {
        let place = Place::open(&of_thread)?;
        let old = place.read()?;
        let new = replaced(&old, &block).map_err(|why| place.refused(&why))?;
        place.replace(&new)
    })
}

fn block(keys: &[(PmId, SshKey)]) -> Vec<u8> {
    let mut text = format!("{BEGIN}\n");
    for (pm, key) in keys {
        text.push_str(&format!("restrict,command=\"{COMMAND}\" {key} pengx-pm-{pm}\n"));
    }
    text.push_str(END);
    text.push('\n');
    text.into_bytes()
}

/// The file with the block in the place of the one that it has, or else before all that it has: so a last line without an
/// end stays as it is, and none of ours is glued to it.
fn replaced(old: &[u8], block: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let lines: Vec<&[u8]> = old.split_inclusive(|byte| *byte == b'\n').collect();
    let is = |line: &[u8], marker: &str| line.trim_ascii_end() == marker.as_bytes();
    let places = |marker| lines.iter().enumerate().filter(move |(_, line)| is(line, marker)).map(|(n, _)| n);
    let (begins, ends): (Vec<_>, Vec<_>) = (places(BEGIN).collect(), places(END).collect());
    let (before, after) = match (&begins[..], &ends[..]) {
        ([], []) => (0, 0),
        ([begin], [end]) if begin < end => (*begin, end + 1),
        _ => return Err("has the two marker lines of pengx not once and in order; remove them".to_owned()),
    };
    let parts = [lines.get(..before).unwrap_or_default().concat(), block.to_vec()];
    Ok([&parts.concat(), &lines.get(after..).unwrap_or_default().concat()[..]].concat())
}

/// The directory that the file is in, and its name there.
struct Place<'a> {
    path: &'a Path,
    dir: OwnedFd,
    name: &'a std::ffi::OsStr,
}

impl<'a> Place<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let refuse = |why: String| Error::refused("authorized_keys", why);
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refuse(format!("{} is no path of a file", path.display())));
        };
        match sys::mkdir(dir, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(refuse(format!("directory {} cannot be made: {e}", dir.display()))),
        }
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let unreadable = |e: Errno| refuse(format!("directory {} cannot be read: {e}", dir.display()));
        let fd = sys::open(dir, how, Mode::empty()).map_err(unreadable)?;
        let stat = sys::fstat(&fd).map_err(unreadable)?;
        if writable_by_others(&stat) {
            let why = format!("directory {} can be written by others; chmod go-w it", dir.display());
            return Err(refuse(why));
        }
        if !is_ours(&stat) && stat.st_uid != 0 {
            return Err(refuse(format!("directory {} belongs to somebody else", dir.display())));
        }
        Ok(Self { path, dir: fd, name })
    }

    fn refused(&self, why: &str) -> Error {
        Error::refused("authorized_keys", format!("{} {why}", self.path.display()))
    }

    /// Nothing, if there is no file.
    fn read(&self) -> Result<Vec<u8>> {
        let unreadable = |e: Errno| self.refused(&format!("cannot be read: {e}"));
        match sys::statat(&self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.trusted(&stat)?,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(e) => return Err(unreadable(e)),
        }
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&self.dir, self.name, how, Mode::empty()).map_err(unreadable)?);
        // Again: it may be another one by now.
        self.trusted(&sys::fstat(&file).map_err(unreadable)?)?;
        let mut bytes = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|e| self.refused(&format!("cannot be read: {e}")))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(self.refused(&format!("has more than {} MiB", MAX_BYTES >> 20)));
        }
        Ok(bytes)
    }

    fn trusted(&self, stat: &Stat) -> Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if is_ours(stat) => Ok(()),
            FileType::RegularFile => Err(self.refused("belongs to somebody else")),
            FileType::Symlink => Err(self.refused("is a symbolic link; set authorized_keys to the file itself")),
            _ => Err(self.refused("is not a regular file")),
        }
    }

    /// The one effect is the rename.
    fn replace(&self, bytes: &[u8]) -> Result<()> {
        let mut new = self.name.to_owned();
        new.push(".pengx-new");
        // Of a process that died over it.
        match sys::unlinkat(&self.dir, &new, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(self.refused(&format!("cannot be written: {e}"))),
        }
        let write = || -> std::io::Result<()> {
            let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let mut file = File::from(sys::openat(&self.dir, &new, how, mode)?);
            file.write_all(bytes)?;
            file.sync_all()?;
            sys::renameat(&self.dir, &new, &self.dir, self.name)?;
            Ok(sys::fsync(&self.dir)?)
        };
        write().map_err(|e| {
            // It is gone if it was renamed, and else the next one removes it.
            sys::unlinkat(&self.dir, &new, AtFlags::empty()).ok();
            self.refused(&format!("cannot be written: {e}"))
        })
    }
}

fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn writable_by_others(stat: &Stat) -> bool {
    stat.st_mode & 0o022 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn keys() -> [(PmId, SshKey); 1] {
        [(PmId(uuid::Uuid::from_u128(7)), KEY.parse().unwrap())]
    }

    /// As it is written for [`keys`].
    fn ours() -> String {
        format!("{BEGIN}\nrestrict,command=\"{COMMAND}\" {KEY} pengx-pm-00000000-0000-0000-0000-000000000007\n{END}\n")
    }

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        home
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn other_lines_stay_byte_for_byte() {
        let ours = ours();
        for other in [&b""[..], b"ssh-rsa AAAA me", b"a\r\nb\r\n", b"\xff\xfe\0\n\n#\n", b"\n\n", b"# END pengx not\n"]
        {
            let first = replaced(other, ours.as_bytes()).unwrap();
            assert_eq!(first, [ours.as_bytes(), other].concat());
            assert_eq!(replaced(&first, ours.as_bytes()).unwrap(), first, "again is no change");
            for tail in [&b""[..], b"x", b"x\r\n"] {
                let old = [b"before\n", &first[..ours.len()], tail].concat();
                let new = replaced(&old, b"NEW\n").unwrap();
                assert_eq!(new, [b"before\nNEW\n", tail].concat());
            }
        }
        let by_hand = format!("x\n{BEGIN} \r\nold\n{END}");
        assert_eq!(replaced(by_hand.as_bytes(), b"NEW\n").unwrap(), b"x\nNEW\n");
    }

    #[test]
    fn half_a_block_is_not_guessed_at() {
        for broken in [
            format!("{BEGIN}\nx\n"),
            format!("{END}\n"),
            format!("{END}\n{BEGIN}\n"),
            format!("{BEGIN}\n{BEGIN}\n{END}\n"),
            format!("{BEGIN}\n{END}\n{BEGIN}\n{END}\n"),
        ] {
            assert!(replaced(broken.as_bytes(), b"NEW\n").unwrap_err().contains("not once and in order"), "{broken}");
        }
    }

    #[test]
    fn file_and_directory_are_made_for_their_owner_alone() {
        let home = home();
        let file = home.path().join(".ssh/authorized_keys");
        write(&file, &keys()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), ours());
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));

        fs::write(&file, "mine").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
        fs::write(home.path().join(".ssh/authorized_keys.pengx-new"), "left by a crash").unwrap();
        write(&file, &[]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{BEGIN}\n{END}\nmine"));
        assert_eq!((mode(&file), fs::read_dir(file.parent().unwrap()).unwrap().count()), (0o600, 1));
    }

    #[test]
    fn what_sshd_would_not_trust_is_refused_and_left_alone() {
        let home = home();
        let file = home.path().join("keys");
        let refused = |why: &str| {
            let said = write(&file, &keys()).unwrap_err().to_string();
            assert!(said.starts_with("authorized_keys refused: ") && said.contains(why), "{said}");
        };
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o775)).unwrap();
        refused("can be written by others; chmod go-w it");
        assert!(!file.exists());
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();

        let other = home.path().join("other");
        fs::write(&other, "mine\n").unwrap();
        symlink(&other, &file).unwrap();
        refused("is a symbolic link");
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine\n");
        fs::remove_file(&file).unwrap();

        fs::create_dir(&file).unwrap();
        refused("is not a regular file");
        fs::remove_dir(&file).unwrap();

        fs::write(&file, format!("{BEGIN}\n")).unwrap();
        refused("remove them");
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{BEGIN}\n"));

        let nowhere = home.path().join("a/b/keys");
        assert!(write(&nowhere, &keys()).unwrap_err().to_string().contains("cannot be made"));
        if rustix::process::geteuid().is_root() {
            fs::write(&file, "theirs\n").unwrap();
            std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
            refused("belongs to somebody else");
            std::os::unix::fs::chown(&file, Some(0), None).unwrap();
            std::os::unix::fs::chown(home.path(), Some(65_534), None).unwrap();
            refused("belongs to somebody else");
        }
    }
}
