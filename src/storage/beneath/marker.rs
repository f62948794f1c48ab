//! The mark of a storlink on its directory: an attribute, or an empty file where the file system has none.
//!
//! An empty mount point, or another disk under the same path, has neither, however much it looks like an empty storlink.

use rustix::fs::{self, AtFlags, XattrFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::{Dir, failed, refused};
use crate::error::Result;
use crate::model::MARKER_PREFIX;

impl Dir {
    pub(in crate::storage) fn mark_as(&self, storlink: Uuid) -> Result<()> {
        match fs::fsetxattr(&self.fd, attribute(storlink), b"1", XattrFlags::empty()) {
            Ok(()) => Ok(()),
            // It has no attributes, or they are not ours to set.
            Err(_) if self.has_file(storlink) => Ok(()),
            Err(_) => {
                self.make(&file(storlink))?;
                self.sync()
            }
        }
    }

    pub(in crate::storage) fn unmark_as(&self, storlink: Uuid) -> Result<()> {
        if self.unlink(&file(storlink))? {
            self.sync()?;
        }
        match fs::fremovexattr(&self.fd, attribute(storlink)) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(failed(format!("the mark of {} cannot be removed", self.path.display()), &self.path, e)),
        }
    }

    /// # Errors
    /// `Refused` if the directory is another one.
    pub(in crate::storage) fn must_be(&self, name: &str, storlink: Uuid) -> Result<()> {
        let mut value = [0; 8];
        match fs::fgetxattr(&self.fd, attribute(storlink), &mut value) {
            Ok(_) => return Ok(()),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => {
                let what = format!("the mark of {} cannot be read", self.path.display());
                return Err(failed(what, &self.path, e));
            }
        }
        if self.has_file(storlink) {
            return Ok(());
        }
        let (path, file) = (self.path.display(), file(storlink));
        Err(refused(format!(
            "directory {path} is there, but it is not storlink {name} that was made: is it mounted? \
             If it is the right one all the same, make the empty file {file} in it"
        )))
    }

    fn has_file(&self, storlink: Uuid) -> bool {
        fs::statat(&self.fd, file(storlink), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

fn attribute(storlink: Uuid) -> String {
    format!("user.pengx.storlink.{storlink}")
}

fn file(storlink: Uuid) -> String {
    format!("{MARKER_PREFIX}{storlink}")
}
