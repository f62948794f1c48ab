//! Programs that tests run themselves.

use std::process::{Command, Output};

/// It must succeed.
pub fn tool(program: &str, args: &[&str]) -> Output {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    done
}

/// What it says; it must succeed.
pub fn qemu_img(args: &[&str]) -> String {
    let run = || Command::new("qemu-img").args(args).output().unwrap();
    let mut done = run();
    // It times its key derivation for LUKS, and gives up on a busy machine.
    for _ in 0..50 {
        if !String::from_utf8_lossy(&done.stderr).contains("accurate CPU usage") {
            break;
        }
        done = run();
    }
    assert!(done.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
