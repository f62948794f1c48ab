//! A headless Chromium, for what only a browser can tell. What it does is told by a script in `tests/browser`, whose
//! packages are installed at the first use.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::tool::tool;

/// The scripts, and below `node_modules` their packages.
pub fn scripts() -> &'static Path {
    static SCRIPTS: OnceLock<PathBuf> = OnceLock::new();
    SCRIPTS.get_or_init(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
        let modified = |file: &str| dir.join(file).metadata().and_then(|metadata| metadata.modified());
        // npm writes its own when it is done.
        let fresh = modified("node_modules/.package-lock.json")
            .is_ok_and(|done| done >= modified("package-lock.json").unwrap());
        if !fresh {
            tool("npm", &["ci", "--prefix", dir.to_str().unwrap(), "--no-audit", "--no-fund", "--ignore-scripts"]);
        }
        dir
    })
}

/// Opens a page and lets the script's function do the rest: `export default async (page, given) => result`. `page` is
/// Playwright's, at `url`; what the function answers is the result. A function that throws fails the test, with what the page
/// has logged.
pub fn browse(script: &str, url: &str, given: &serde_json::Value) -> serde_json::Value {
    let dir = scripts();
    let given = given.to_string();
    let mut command = Command::new("node");
    command.arg(dir.join("run.mjs")).args([script, url, &given]).stdin(Stdio::null());
    let done = command.output().expect("node, which tests/lab/install.sh installs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{script} at {url}: {said}");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{script} at {url}: {e}: {said}"))
}
