// SPDX-License-Identifier: GPL-2.0

//! What `make man` writes.

#[allow(dead_code)]
#[path = "../examples/generate.rs"]
mod generate;

use clap::CommandFactory;
use luoctl::cli::Cli;
use std::fs::read_to_string;

#[test]
fn each_command_has_a_page_and_a_completion() {
    let folder = tempfile::tempdir().unwrap();
    generate::write(folder.path()).unwrap();
    let man = |name: &str| read_to_string(folder.path().join("man").join(name));
    let bash = read_to_string(folder.path().join("completions/luoctl.bash")).unwrap();
    let mut pages = 1;
    for command in Cli::command().get_subcommands() {
        if command.is_hide_set() {
            continue;
        }
        pages += 1;
        let name = command.get_name();
        let page = man(&format!("luoctl-{name}.8")).unwrap();
        let about = command.get_about().unwrap().to_string();
        assert!(page.contains(&about), "{name}: {page}");
        assert!(bash.contains(&format!("luoctl__subcmd__{name}")), "{name}");
    }
    let there = std::fs::read_dir(folder.path().join("man"))
        .unwrap()
        .count();
    assert_eq!(there, pages, "pages of commands that nobody is to type");
    let whole = man("luoctl.8").unwrap();
    assert!(whole.contains(".SH EXIT CODES\n.nf\n"), "{whole}");
    assert!(whole.contains("\n  130  interrupted"), "{whole}");
}
