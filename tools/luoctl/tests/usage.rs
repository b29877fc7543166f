// SPDX-License-Identifier: GPL-2.0

//! What the program says before it touches the machine.

use std::process::{Command, Output};

fn luoctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_luoctl"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn wrong_usage_is_told_from_failure() {
    for (args, wanted) in [
        (&[][..], "Usage: luoctl <COMMAND>"),
        (&["preserve", "vm"], "<TOKEN=FILE>..."),
        (&["preserve", "vm", "one=/x"], "'one' is not a number"),
        (
            &["preserve", "vm", "1=/x", "0x1=/y"],
            "the token 0x1 is there twice",
        ),
        (&["preserve", "", "1=/x"], "a session name cannot be empty"),
        (
            &["retrieve", "vm"],
            "nothing is said of what to do with the files",
        ),
        (&["load", "/boot/vmlinuz"], "--reuse-cmdline"),
    ] {
        let output = luoctl(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
        assert!(
            !said.contains('\u{1b}'),
            "colours without a terminal: {said:?}"
        );
    }
}

#[test]
fn help_tells_the_exit_codes() {
    let output = luoctl(&["--help"]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("\n  7    the live update is refused"),
        "{said}"
    );
}
