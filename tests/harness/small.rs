//! Storage that has little room.

use std::path::{Path, PathBuf};

use super::tool::tool;

/// A file system of its own, for as long as this lives; needs root.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Of this size, as `mount` has it: `8m`.
    pub fn mount(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        tool("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "none", dir.path().to_str().unwrap()]);
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What takes the room; not a file of anybody else.
    pub fn filler(&self) -> PathBuf {
        self.path().join(".filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        tool("umount", &["--lazy", self.path().to_str().unwrap()]);
    }
}

/// Writes until not a byte fits.
pub fn fill_up(filler: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}
