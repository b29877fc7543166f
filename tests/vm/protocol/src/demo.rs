// SPDX-License-Identifier: GPL-2.0

//! What the demonstration reports.

use serde::{Deserialize, Serialize};

/// Path, in the data archive, of the manifest: a line `SHA256  PATH` for each file, as sha256sum writes it.
pub const MANIFEST: &str = ".luo-demo-manifest";

/// Name of the service's session.
pub const SESSION: &str = "archive";

/// Starts the line in the kernel log that ties the log's clock to the processor's; the counter's value follows.
pub const MARK_CLOCK: &str = "luo-vm: clock ";

/// A step on the way, timed inside the VM.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reading the data into memfds. Not part of the update.
    Load,
    /// CREATE_SESSION and all PRESERVE_FD. The service goes on meanwhile.
    Preserve,
    /// The same for the virtual machine, which runs meanwhile.
    PreserveGuest,
    /// kexec_file_load(2). The service goes on meanwhile.
    LoadKernel,
    /// The virtual machine is made to stand still, and its state written.
    PauseGuest,
    /// insmod in the new kernel.
    LoadModule,
    /// RETRIEVE_SESSION and all RETRIEVE_FD.
    Retrieve,
    /// FINISH.
    Finish,
    /// From the start of the service to its first answer, with retrieve and finish in it.
    FirstAnswer,
    /// insmod of KVM's modules in the new kernel.
    LoadKvm,
    /// From the start of the VMM to the guest that runs on.
    ResumeGuest,
    /// Checking every sum.
    Verify,
}

/// A line of the demonstration's report. `tsc` is the processor's time stamp counter, which goes on through a kexec.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DemoEvent {
    /// Both clocks at one moment, to learn the counter's frequency.
    Clock {
        /// Time stamp counter.
        tsc: u64,
        /// CLOCK_MONOTONIC in nanoseconds.
        monotonic_ns: u64,
    },
    /// A step was done.
    Step {
        /// Which.
        step: Step,
        /// Counter at its start.
        from: u64,
        /// Counter at its end.
        to: u64,
    },
    /// What the service holds.
    Holding {
        /// Files of the data.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Memfds they lie in, the index included.
        memfds: u64,
        /// Sessions these are preserved in.
        sessions: u64,
    },
    /// A virtual machine runs beside the service.
    Guest {
        /// Its processors.
        processors: u64,
        /// How far it has counted.
        count: u64,
    },
    /// There can be none.
    NoGuest {
        /// Why.
        why: String,
    },
    /// The virtual machine goes on: it left out no number and said none twice, and every word of its memory was right.
    GuestVerdict {
        /// How far it had counted in the old kernel.
        before: u64,
        /// How far by now.
        after: u64,
        /// The longest time between two numbers since, by its own clock.
        gap_ms: u64,
    },
    /// The service answered requests, and each answer had the right sum.
    Served {
        /// So many.
        requests: u64,
    },
    /// `reboot(LINUX_REBOOT_CMD_KEXEC)` is called now.
    Reboot {
        /// Time stamp counter.
        tsc: u64,
    },
    /// `/init` of the new kernel runs.
    Arrived {
        /// Time stamp counter.
        tsc: u64,
    },
    /// Every file was asked for and its sum compared.
    Verdict {
        /// Files with the right sum.
        right: u64,
        /// Their bytes.
        bytes: u64,
        /// Files with another sum, or none.
        wrong: Vec<String>,
    },
}
