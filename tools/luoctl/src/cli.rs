// SPDX-License-Identifier: GPL-2.0

//! What can be typed.

use crate::failure::EXIT_CODES;
use crate::token::{self, MaybePath, TokenPath};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use liveupdate::{NameError, SessionName};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Keeps file descriptors of running workloads across a kexec: looks at the sessions of /dev/liveupdate, puts files
/// into them, and replaces the kernel.
#[derive(Debug, Parser)]
#[command(name = "luoctl", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell which orchestrator this kernel has
    Info(Format),
    /// List the sessions, their files, and who holds them
    ///
    /// A session's files are listed if some process holds it. To ask for them, luoctl has the session open for a
    /// moment, too: should its holder close it just then, it ends that moment later. With --no-files it does not.
    #[command(after_help = "Examples:\n  luoctl list --json | jq -r '.sessions[].name'")]
    List(List),
    /// Find out whether this machine is ready for a live update
    ///
    /// Exits with 3 if something is missing.
    Check(Format),
    /// Load the next kernel
    ///
    /// It is started by `luoctl update`. A kernel that was loaded before is replaced, or stays if this one cannot be
    /// loaded.
    #[command(
        after_help = "Examples:\n  luoctl load /boot/vmlinuz-7.3.5 --initrd /boot/initrd.img-7.3.5 --reuse-cmdline"
    )]
    Load(Load),
    /// Take back what `load` loaded
    Unload,
    /// Put files into a new session and leave a process behind that holds it until the kexec
    ///
    /// FILE is a path. /proc/PID/fd/N, and /dev/fd/N for a descriptor that luoctl was started with, mean the very
    /// descriptor that the process has, with its position; any other path is opened. What can be preserved depends on
    /// the kernel's handlers: memfds, unlinked files on tmpfs, and what handler modules add. The contents of an
    /// ordinary file are not: put them into a memfd first.
    ///
    /// The files stay in use: what is written to them until the kexec arrives, too. If one of them cannot be
    /// preserved, none is.
    #[command(after_help = "Examples:\n  luoctl preserve vm-7 1=/proc/812/fd/9 2=/proc/812/fd/11")]
    Preserve(Preserve),
    /// Take files out of a session again, or end a session that `preserve` began
    #[command(after_help = "Examples:\n  luoctl unpreserve vm-7 2\n  luoctl unpreserve vm-7")]
    Unpreserve(Unpreserve),
    /// Take the files of a session that the previous kernel handed on
    ///
    /// TOKEN=PATH copies a file's contents to a new file; holes stay holes. With a COMMAND the files whose tokens
    /// stand alone (all, if no token is given) become descriptors 3, 4, ... of that command, as systemd's sd_listen_fds(3)
    /// defines it: LISTEN_FDS, LISTEN_PID, and the tokens in LISTEN_FDNAMES.
    ///
    /// The session is finished once all of its files were named and taken. Until then a process holds it, so that nothing
    /// is lost when a disk is full: run the command again. What is not taken is lost only by --finish.
    #[command(
        after_help = "Examples:\n  luoctl retrieve vm-7 1=/var/tmp/ram.img 2=/var/tmp/state\n  luoctl retrieve vm-7 -- /usr/local/bin/vmm --resume\n  luoctl retrieve vm-7 --finish"
    )]
    Retrieve(Retrieve),
    /// Prepare every session, then start the loaded kernel
    ///
    /// If a session refuses, nothing is interrupted: the error names it and its file, and the others are as before.
    /// Workloads should be paused, and services stopped, as far as they need it: this is `kexec -e` with a check before,
    /// not a shutdown.
    #[command(after_help = "Examples:\n  luoctl update --dry-run\n  luoctl update vm-7 vm-8")]
    Update(Update),
    /// Hold a session
    #[command(name = crate::custodian::COMMAND, hide = true)]
    Custodian {
        /// The session's name, for whoever reads the list of processes
        name: OsString,
    },
}

/// How to show the result.
#[derive(Args, Debug)]
pub struct Format {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `list`.
#[derive(Args, Debug)]
pub struct List {
    /// How to show the result.
    #[command(flatten)]
    pub format: Format,
    /// Only the sessions
    #[arg(long)]
    pub no_files: bool,
}

/// Of `load`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("line").required(true).multiple(true).args(["reuse_cmdline", "command_line", "append"]))]
pub struct Load {
    /// The kernel's image
    pub kernel: PathBuf,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Start it with the words that this kernel was started with
    #[arg(long)]
    pub reuse_cmdline: bool,
    /// Start it with these words
    #[arg(long, value_name = "WORDS", conflicts_with = "reuse_cmdline")]
    pub command_line: Option<String>,
    /// Add these words to the others
    #[arg(long, value_name = "WORDS")]
    pub append: Option<String>,
}

/// Of `preserve`.
#[derive(Args, Debug)]
pub struct Preserve {
    /// The session's name, 1 to 63 bytes
    #[arg(value_parser = name())]
    pub name: SessionName,
    /// Files, each with the number by which it is to be retrieved
    #[arg(value_name = "TOKEN=FILE", required = true)]
    pub files: Vec<TokenPath>,
}

/// Of `unpreserve`.
#[derive(Args, Debug)]
pub struct Unpreserve {
    /// The session's name
    #[arg(value_parser = name())]
    pub name: SessionName,
    /// The files to take out; without any, the session is ended
    #[arg(value_name = "TOKEN", value_parser = token::parse)]
    pub tokens: Vec<u64>,
}

/// Of `retrieve`.
#[derive(Args, Debug)]
pub struct Retrieve {
    /// The session's name
    #[arg(value_parser = name())]
    pub name: SessionName,
    /// The files to copy out, or to hand to COMMAND
    #[arg(value_name = "TOKEN[=PATH]")]
    pub files: Vec<MaybePath>,
    /// Finish the session in any case: what was not taken is gone
    #[arg(long)]
    pub finish: bool,
    /// A command to become
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Of `update`.
#[derive(Args, Debug)]
pub struct Update {
    /// Sessions that must be there, or nothing is done
    #[arg(value_name = "NAME", value_parser = name())]
    pub names: Vec<SessionName>,
    /// Prepare every session, undo that, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Only undo what an update that was killed has prepared
    #[arg(long, conflicts_with_all = ["dry_run", "lose_incoming", "names"])]
    pub cancel: bool,
    /// Go on although sessions of the previous kernel are not finished: they will be lost
    #[arg(long)]
    pub lose_incoming: bool,
}

/// Any bytes, as the kernel takes them.
fn name() -> impl TypedValueParser<Value = SessionName> {
    OsStringValueParser::new()
        .try_map(|name: OsString| -> Result<_, NameError> { SessionName::new(name.as_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, String> {
        Cli::try_parse_from(line.split(' '))
            .map(|cli| cli.command)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn preserve_takes_files_by_token() {
        let Ok(Command::Preserve(args)) = parse("luoctl preserve vm 1=/proc/7/fd/3 0x2=/x") else {
            panic!("not understood");
        };
        assert_eq!(args.name.to_str(), Some("vm"));
        let tokens: Vec<u64> = args.files.iter().map(|file| file.token).collect();
        assert_eq!(tokens, [1, 2]);
        for wrong in [
            "luoctl preserve vm",
            "luoctl preserve vm /x",
            "luoctl preserve vm x=/x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let long = format!("luoctl preserve {} 1=/x", "n".repeat(64));
        assert!(parse(&long).unwrap_err().contains("64 bytes is too long"));
    }

    #[test]
    fn retrieve_tells_its_command_from_its_files() {
        let Ok(Command::Retrieve(args)) = parse("luoctl retrieve vm 1=/x 2 -- cmd 3 --finish")
        else {
            panic!("not understood");
        };
        assert_eq!(args.files.len(), 2);
        assert_eq!(args.command, ["cmd", "3", "--finish"]);
        assert!(!args.finish);
    }

    #[test]
    fn load_wants_a_command_line_of_one_origin() {
        assert!(parse("luoctl load /k --reuse-cmdline --append x").is_ok());
        assert!(parse("luoctl load /k --command-line x").is_ok());
        assert!(parse("luoctl load /k").is_err());
        assert!(parse("luoctl load /k --command-line x --reuse-cmdline").is_err());
    }

    #[test]
    fn update_and_its_cancel_do_not_mix() {
        assert!(parse("luoctl update vm-1 vm-2 --dry-run").is_ok());
        assert!(parse("luoctl update --cancel --dry-run").is_err());
        assert!(parse("luoctl update --cancel vm-1").is_err());
    }

    #[test]
    fn the_custodian_is_not_offered() {
        assert!(!Cli::command()
            .render_long_help()
            .to_string()
            .contains("custodian"));
    }
}
