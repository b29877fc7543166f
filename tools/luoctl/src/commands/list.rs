// SPDX-License-Identifier: GPL-2.0

//! `luoctl list`

use crate::cli;
use crate::device;
use crate::failure::{chain, Result};
use crate::held::{AllHeld, Held};
use crate::output::{self, Table};
use crate::proc::{Proc, Process};
use liveupdate::{FileInfo, SessionFlags, SessionInfo, SessionName, State};
use serde::Serialize;
use std::fmt;

/// Prints it.
pub fn run(args: &cli::List) -> Result<()> {
    let device = device::open()?;
    let listed = match device.sessions() {
        Ok(sessions) => Some(sessions),
        Err(error) if error.is_unsupported() => None,
        Err(error) => return Err(error.into()),
    };
    drop(device);
    let held = match (args.no_files, &listed) {
        (true, Some(_)) => AllHeld::default(),
        _ => AllHeld::find(&Proc::default()),
    };
    for denied in &held.denied {
        output::note(format_args!(
            "a session of {}: {}",
            denied.process, denied.why
        ));
    }
    let list = List::new(listed.as_deref(), &held, args.no_files);
    output::print(&list, args.format.json)
}

/// All sessions.
#[derive(Serialize)]
struct List {
    /// Whether the orchestrator has listed them. Else these are those that a process holds.
    complete: bool,
    sessions: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Outgoing,
    Incoming,
}

/// A session. What could not be learned is `None`.
#[derive(Serialize)]
struct Row {
    name: String,
    direction: Direction,
    state: Option<String>,
    ordered: Option<bool>,
    file_count: Option<u64>,
    held_by: Option<Vec<Process>>,
    files: Option<Vec<FileRow>>,
}

#[derive(Serialize)]
struct FileRow {
    token: u64,
    format: String,
    state: String,
}

impl List {
    fn new(listed: Option<&[SessionInfo]>, held: &AllHeld, no_files: bool) -> Self {
        let sessions = match listed {
            Some(listed) => listed
                .iter()
                .map(|info| Row::listed(info, held, no_files))
                .collect(),
            None => held.sessions.iter().map(Row::unlisted).collect(),
        };
        Self {
            complete: listed.is_some(),
            sessions,
        }
    }
}

impl Row {
    /// A session that the orchestrator has listed.
    fn listed(info: &SessionInfo, held: &AllHeld, no_files: bool) -> Self {
        let outgoing = info.state != State::Updated;
        let found = held.get(&info.name, outgoing);
        Self {
            state: Some(info.state.to_string()),
            ordered: Some(info.flags.contains(SessionFlags::ORDERED)),
            file_count: Some(info.files),
            held_by: (!no_files)
                .then(|| found.map(|held| held.holders.clone()).unwrap_or_default()),
            files: found.and_then(files),
            ..Self::new(&info.name, outgoing)
        }
    }

    /// A session that a process has, of an orchestrator that does not list any.
    fn unlisted(held: &Held) -> Self {
        Self {
            held_by: Some(held.holders.clone()),
            files: files(held),
            ..Self::new(&held.name, held.is_outgoing())
        }
    }

    fn new(name: &SessionName, outgoing: bool) -> Self {
        Self {
            name: name.to_string(),
            direction: match outgoing {
                true => Direction::Outgoing,
                false => Direction::Incoming,
            },
            state: None,
            ordered: None,
            file_count: None,
            held_by: None,
            files: None,
        }
    }
}

fn files(held: &Held) -> Option<Vec<FileRow>> {
    match held.session.files() {
        Ok(files) => Some(files.iter().map(FileRow::from).collect()),
        Err(error) if error.is_unsupported() => None,
        Err(error) => {
            output::note(format_args!("session '{}': {}", held.name, chain(&error)));
            None
        }
    }
}

impl From<&FileInfo> for FileRow {
    fn from(file: &FileInfo) -> Self {
        Self {
            token: file.token,
            format: file.compatible.clone(),
            state: file.state.to_string(),
        }
    }
}

const UNKNOWN: &str = "-";

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.complete {
            writeln!(
                f,
                "This orchestrator lists no sessions. Those that a process holds:"
            )?;
        }
        if self.sessions.is_empty() {
            return writeln!(f, "no sessions");
        }
        f.write_str(&self.session_table())?;
        if self
            .sessions
            .iter()
            .any(|row| row.files.as_ref().is_some_and(|files| !files.is_empty()))
        {
            write!(f, "\n{}", self.file_table())?;
        }
        Ok(())
    }
}

impl List {
    fn session_table(&self) -> String {
        let mut table = Table::new(&["SESSION", "DIRECTION", "STATE", "FILES", "HELD BY"]);
        for row in &self.sessions {
            let state = match (&row.state, row.ordered) {
                (Some(state), Some(true)) => format!("{state}, ordered"),
                (Some(state), _) => state.clone(),
                (None, _) => UNKNOWN.into(),
            };
            let direction = match row.direction {
                Direction::Outgoing => "outgoing",
                Direction::Incoming => "incoming",
            };
            let count = row
                .file_count
                .map_or(UNKNOWN.into(), |count| count.to_string());
            let holders: Vec<String> = match &row.held_by {
                Some(holders) => holders.iter().map(ToString::to_string).collect(),
                None => Vec::new(),
            };
            let holders = match (holders.is_empty(), row.direction) {
                (false, _) => holders.join(", "),
                (true, Direction::Incoming) if row.held_by.is_some() => "nobody yet".into(),
                (true, _) => UNKNOWN.into(),
            };
            table.row(&[&row.name, direction, &state, &count, &holders]);
        }
        table.finish()
    }

    fn file_table(&self) -> String {
        let mut table = Table::new(&["SESSION", "TOKEN", "FORMAT", "STATE"]);
        for row in &self.sessions {
            for file in row.files.iter().flatten() {
                table.row(&[
                    &row.name,
                    &format!("{:#x}", file.token),
                    &file.format,
                    &file.state,
                ]);
            }
        }
        table.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anstream::adapter::strip_str;

    fn row(name: &str, direction: Direction, pid: Option<u32>) -> Row {
        let holder = |pid| Process {
            pid,
            command: "vmm".into(),
            custodian: false,
        };
        Row {
            direction,
            state: Some("updated".into()),
            ordered: Some(false),
            file_count: Some(2),
            held_by: Some(pid.map(holder).into_iter().collect()),
            ..Row::new(&name.parse().unwrap(), true)
        }
    }

    fn sample() -> List {
        let file = |token| FileRow {
            token,
            format: "memfd-v2".into(),
            state: "prepared".into(),
        };
        let mine = Row {
            state: Some("prepared".into()),
            ordered: Some(true),
            files: Some(vec![file(1), file(0xff)]),
            ..row("vm-7", Direction::Outgoing, Some(12))
        };
        List {
            complete: true,
            sessions: vec![mine, row("a long name", Direction::Incoming, None)],
        }
    }

    #[test]
    fn as_a_table() {
        let text = strip_str(&sample().to_string()).to_string();
        assert_eq!(
            text,
            "\
SESSION      DIRECTION  STATE              FILES  HELD BY
vm-7         outgoing   prepared, ordered  2      vmm (PID 12)
a long name  incoming   updated            2      nobody yet

SESSION  TOKEN  FORMAT    STATE
vm-7     0x1    memfd-v2  prepared
vm-7     0xff   memfd-v2  prepared
"
        );
    }

    #[test]
    fn as_json() {
        assert_eq!(
            serde_json::to_value(sample()).unwrap(),
            serde_json::json!({
                "complete": true,
                "sessions": [{
                    "name": "vm-7", "direction": "outgoing", "state": "prepared", "ordered": true,
                    "file_count": 2,
                    "held_by": [{"pid": 12, "command": "vmm", "custodian": false}],
                    "files": [
                        {"token": 1, "format": "memfd-v2", "state": "prepared"},
                        {"token": 255, "format": "memfd-v2", "state": "prepared"},
                    ],
                }, {
                    "name": "a long name", "direction": "incoming", "state": "updated",
                    "ordered": false, "file_count": 2, "held_by": [], "files": null,
                }],
            })
        );
    }

    #[test]
    fn without_anything_and_without_a_list() {
        let mut list = List {
            complete: true,
            sessions: vec![],
        };
        assert_eq!(list.to_string(), "no sessions\n");
        list.complete = false;
        list.sessions.push(Row::new(&"vm".parse().unwrap(), true));
        assert_eq!(
            strip_str(&list.to_string()).to_string(),
            "\
This orchestrator lists no sessions. Those that a process holds:
SESSION  DIRECTION  STATE  FILES  HELD BY
vm       outgoing   -      -      -
"
        );
    }
}
