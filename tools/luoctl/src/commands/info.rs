// SPDX-License-Identifier: GPL-2.0

//! `luoctl info`

use crate::cli::Format;
use crate::device;
use crate::failure::Result;
use crate::output::{self, Table};
use serde::Serialize;
use std::fmt;

/// Prints it.
pub fn run(format: &Format) -> Result<()> {
    let uname = rustix::system::uname();
    let kernel = uname.release().to_string_lossy().into_owned();
    let info = match device::open()?.info() {
        Ok(info) => Info {
            kernel,
            extensions: true,
            orchestrator: Some(info.implementation),
            memfd_format: Some(info.memfd_format),
            live_updates: Some(info.liveupdate_num),
        },
        Err(error) if error.is_unsupported() => Info {
            kernel,
            extensions: false,
            orchestrator: None,
            memfd_format: None,
            live_updates: None,
        },
        Err(error) => return Err(error.into()),
    };
    output::print(&info, format.json)
}

/// What is known of the orchestrator.
#[derive(Serialize)]
struct Info {
    kernel: String,
    /// Whether it has the commands beyond those of Linux 7.3, and so could answer.
    extensions: bool,
    orchestrator: Option<String>,
    memfd_format: Option<String>,
    /// Since the machine was powered on.
    live_updates: Option<u64>,
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::without_heading();
        table.row(&["kernel", &self.kernel]);
        let unnamed = "the kernel's own, or another without extensions";
        table.row(&[
            "orchestrator",
            self.orchestrator.as_deref().unwrap_or(unnamed),
        ]);
        if let Some(format) = &self.memfd_format {
            table.row(&["memfds are handed on as", format]);
        }
        if let Some(count) = self.live_updates {
            table.row(&["live updates since power-on", &count.to_string()]);
        }
        f.write_str(&table.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json() {
        let ours = Info {
            kernel: "7.3.4".into(),
            extensions: true,
            orchestrator: Some("luo.ko 0.1".into()),
            memfd_format: Some("memfd-v2".into()),
            live_updates: Some(2),
        };
        assert_eq!(
            ours.to_string(),
            "kernel                       7.3.4\n\
             orchestrator                 luo.ko 0.1\n\
             memfds are handed on as      memfd-v2\n\
             live updates since power-on  2\n"
        );
        let other = Info {
            kernel: "7.3.4".into(),
            extensions: false,
            orchestrator: None,
            memfd_format: None,
            live_updates: None,
        };
        assert_eq!(other.to_string().lines().count(), 2);
        assert_eq!(
            serde_json::to_value(&other).unwrap(),
            serde_json::json!({
                "kernel": "7.3.4", "extensions": false, "orchestrator": null,
                "memfd_format": null, "live_updates": null,
            })
        );
    }
}
