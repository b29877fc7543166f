// SPDX-License-Identifier: GPL-2.0

//! Writes what a package of `luoctl` has beside the program: manual pages and shell completions, out of the definition of
//! its command line. `make man` runs it.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use luoctl::cli::Cli;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: generate FOLDER");
        std::process::exit(2);
    };
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    manuals(&command, &folder.join("man"))?;
    completions(&mut command, &folder.join("completions"))
}

/// One of the whole, and one of each command.
fn manuals(command: &Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    for command in shown.chain([command]) {
        let name = command
            .get_display_name()
            .unwrap_or_else(|| command.get_name());
        let mut page = Vec::new();
        Man::new(command.clone())
            .title(name.to_uppercase())
            .section("8")
            .manual("System Administration")
            .render(&mut page)?;
        std::fs::write(folder.join(format!("{name}.8")), page)?;
    }
    Ok(())
}

fn completions(command: &mut Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, command, "luoctl", folder)?;
    }
    Ok(())
}
