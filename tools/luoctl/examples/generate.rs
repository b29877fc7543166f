// SPDX-License-Identifier: GPL-2.0

//! Writes what a package of `luoctl` has beside the program: manual pages and shell completions, out of the definition of
//! its command line. `make man` runs it.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use luoctl::cli::Cli;
use std::io::{self, Write};
use std::path::Path;

fn main() -> io::Result<()> {
    match std::env::args_os().nth(1) {
        Some(folder) => write(Path::new(&folder)),
        None => Err(io::Error::other("usage: generate FOLDER")),
    }
}

/// Writes all of it below this folder.
pub fn write(folder: &Path) -> io::Result<()> {
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
        std::fs::write(folder.join(format!("{name}.8")), manual(command, name)?)?;
    }
    Ok(())
}

fn manual(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section("8")
        .source(concat!("luoctl ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    // What stands behind the help: a heading, and lines that are to stay lines.
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        let (heading, lines) = text.split_once(":\n").unwrap_or(("Notes", &text));
        let lines = lines.replace('\\', "\\e").replace('-', "\\-");
        writeln!(page, ".SH {}\n.nf\n{lines}\n.fi", heading.to_uppercase())?;
    }
    if name != "luoctl" {
        writeln!(
            page,
            ".SH \"SEE ALSO\"\nluoctl(8), which tells the exit codes"
        )?;
    }
    Ok(page)
}

fn completions(command: &mut Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, command, "luoctl", folder)?;
    }
    Ok(())
}
