//! For how long guests stood still, by libvirt's own events.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

/// Watches until it is dropped.
pub(crate) struct Pauses {
    child: Child,
    lines: Receiver<String>,
}

impl Pauses {
    pub(crate) fn watch(uri: &str) -> Self {
        let mut child = Command::new("virsh")
            .args(["-c", uri, "event", "--event", "lifecycle", "--loop", "--timestamp"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        Self { child, lines }
    }

    /// What came since the last call: the pauses, and the longest.
    pub(crate) fn since(&self) -> String {
        let (mut began, mut pauses) = (None, Vec::new());
        for line in self.lines.try_iter() {
            let at = line.split_whitespace().nth(1).and_then(milliseconds);
            if line.contains("Suspended") {
                began = at;
            } else if line.contains("Resumed")
                && let (Some(from), Some(to)) = (began.take(), at)
            {
                pauses.push((to - from).rem_euclid(86_400_000.0));
            }
        }
        let longest = pauses.iter().copied().fold(0.0, f64::max);
        format!("the guest stood still {} times, {longest:.0} ms at most", pauses.len())
    }
}

/// `12:34:56.789+0000:`
fn milliseconds(time: &str) -> Option<f64> {
    let mut parts = time.split(['+', '-']).next()?.splitn(3, ':').map(str::parse::<f64>);
    let (hours, minutes, seconds) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some(((hours * 60.0 + minutes) * 60.0 + seconds) * 1e3)
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
