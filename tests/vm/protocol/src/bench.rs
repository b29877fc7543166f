// SPDX-License-Identifier: GPL-2.0

//! What the benchmark asks for, and what it reports.

use serde::{Deserialize, Serialize};

/// Starts the line in the kernel log that is written just before `reboot()`; the time stamp counter follows.
pub const MARK_REBOOT: &str = "luo-vm: reboot at ";

/// What one VM measures, in two kernels with a kexec between.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Nothing is preserved: what all else is compared with. And the command that does nothing.
    Idle,
    /// One memfd.
    Memfd(Memfd),
    /// So many sessions without a file.
    Sessions(u32),
    /// So many memfds of one page in one session.
    Files(u32),
}

/// A memfd, and how it gets its memory.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Memfd {
    /// Size in bytes.
    pub size: u64,
    /// How much of it is populated, in percent; all else is hole.
    pub percent: u8,
    /// In what order, and from what memory.
    pub layout: Layout,
    /// Whether it gets folios of 2 MiB, instead of 4 KiB.
    pub huge: bool,
    /// Whether its pages are accessed before FINISH, as by a guest that runs on at once, or after it.
    pub early: bool,
}

/// In what order a memfd is populated, and from what memory.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// From the first page to the last, right after boot.
    InOrder,
    /// In random order, right after boot.
    Random,
    /// From the first page to the last, when free memory is a heap of crumbs.
    Fragmented {
        /// Pages of a crumb.
        crumb: u32,
    },
}

/// Something that is measured. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Time of CREATE_SESSION.
    CreateSession,
    /// Time of closing an outgoing session without a file.
    CloseSession,
    /// Time of PRESERVE_FD.
    Preserve,
    /// Time of closing a session with files, for each file.
    Unpreserve,
    /// Time of GET_NAME.
    GetName,
    /// Time of insmod, in the new kernel.
    Insmod,
    /// Time of RETRIEVE_SESSION.
    RetrieveSession,
    /// Time of RETRIEVE_FD.
    Retrieve,
    /// Time of FINISH, for each file.
    Finish,
    /// Time of FINISH of a session without a file.
    FinishSession,
    /// Time of the first access to each populated page of a mapping, in the new kernel.
    Touch,
    /// Bytes of memory that PRESERVE_FD took.
    PreserveMemory,
    /// Bytes of those that were not given back when the session was closed.
    UnpreserveLeft,
    /// Bytes free at the end, when all is closed.
    FreeAtEnd,
    /// Pages that PRESERVE_FD moved elsewhere: out of where the next kernel will be put.
    Moved,
    /// Populated pages.
    Pages,
    /// Pieces of memory that hold them: each contiguous, physically, in any order.
    Pieces,
    /// Of KHO's keys, of which one stands for an aligned power of two of pages: as many as those pieces take.
    LeastKeys,
    /// Bytes in folios of 2 MiB.
    HugeBytes,
}

/// A line of the benchmark's report.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum BenchEvent {
    /// A figure: the sum, and over how many operations.
    Figure {
        /// What was measured.
        figure: Figure,
        /// Sum.
        total: i64,
        /// Number of operations.
        count: u64,
    },
    /// `/init` of the new kernel runs.
    Arrived {
        /// Time stamp counter at its start.
        tsc: u64,
    },
    /// Where the time of a figure went: functions of the kernel and how often each was seen, the most frequent first.
    Profile {
        /// Of what.
        figure: Figure,
        /// Samples of all functions.
        samples: u64,
        /// Nanoseconds between two samples.
        period_ns: u64,
        /// Function, samples in itself, samples in it or what it called.
        functions: Vec<(String, u64, u64)>,
    },
}
