// SPDX-License-Identifier: GPL-2.0

//! Where the time goes: samples of the kernel's call stack at regular times.
//!
//! The kernel's own facility, perf_event_open(2), driven by a timer: the emulated processor has no counters. What runs
//! with interrupts off is seen where it turns them on again.

use super::report;
use anyhow::{bail, ensure, Context, Result};
use luo_vm_protocol::bench::{BenchEvent, Figure};
use nix::errno::Errno;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{fence, Ordering};

/// Nanoseconds between two samples: instructions, in the benchmark's VM.
const PERIOD: u64 = 20_000;
/// Bytes of the buffer; what does not fit is counted as lost.
const BUFFER: usize = 32 << 20;
const PAGE: usize = 4096;
/// How many functions are reported.
const FUNCTIONS: usize = 60;

const TYPE_SOFTWARE: u32 = 1;
const CONFIG_CPU_CLOCK: u64 = 0;
const SAMPLE_CALLCHAIN: u64 = 1 << 5;
const FLAGS_DISABLED: u64 = 1;
const FLAGS_EXCLUDE_USER: u64 = 1 << 4;
const FLAGS_EXCLUDE_CALLCHAIN_USER: u64 = 1 << 22;
const IOC_ENABLE: u64 = 0x2400;
const IOC_DISABLE: u64 = 0x2401;
const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;
/// Offset of `data_head` in the buffer's first page.
const DATA_HEAD: usize = 1024;
/// Call chains have marks from this value on, which are no addresses.
const CONTEXT_MAX: u64 = -4095i64 as u64;

/// The first published version of `struct perf_event_attr`, which is all that is needed here.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

/// Samples are being taken.
pub struct Profile {
    event: File,
    buffer: *mut u8,
}

/// The samples of one piece of work: a call stack each, innermost first.
pub struct Samples {
    stacks: Vec<Vec<u64>>,
}

impl Profile {
    /// Starts.
    pub fn start() -> Result<Self> {
        let attributes = Attributes {
            kind: TYPE_SOFTWARE,
            size: size_of::<Attributes>() as u32,
            config: CONFIG_CPU_CLOCK,
            sample_period: PERIOD,
            sample_type: SAMPLE_CALLCHAIN,
            read_format: 0,
            flags: FLAGS_DISABLED | FLAGS_EXCLUDE_USER | FLAGS_EXCLUDE_CALLCHAIN_USER,
            wakeup_events: 0,
            bp_type: 0,
            config1: 0,
        };
        // SAFETY: the struct is as long as it says; this process, on any CPU, no group, no flags.
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &attributes, 0, -1, -1, 0) };
        let fd = Errno::result(fd).context("perf_event_open")?;
        // SAFETY: the kernel just made this descriptor for us.
        let event = unsafe { File::from_raw_fd(fd as i32) };
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let len = PAGE + BUFFER;
        // SAFETY: a new mapping, wherever the kernel likes.
        let buffer = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                flags,
                event.as_raw_fd(),
                0,
            )
        };
        ensure!(
            buffer != libc::MAP_FAILED,
            "mapping the samples: {}",
            Errno::last()
        );
        let profile = Self {
            event,
            buffer: buffer.cast(),
        };
        profile.control(IOC_ENABLE)?;
        Ok(profile)
    }

    fn control(&self, command: u64) -> Result<()> {
        // SAFETY: a command without argument.
        let done = unsafe { libc::ioctl(self.event.as_raw_fd(), command as _, 0) };
        Errno::result(done)
            .map(drop)
            .context("controlling the samples")
    }

    /// Stops, and gives what was sampled.
    pub fn stop(self) -> Result<Samples> {
        self.control(IOC_DISABLE)?;
        // SAFETY: the head lies in the first page of the buffer, aligned.
        let head = unsafe { self.buffer.add(DATA_HEAD).cast::<u64>().read_volatile() };
        fence(Ordering::Acquire);
        // SAFETY: the data follows the first page. The kernel writes no more, and never went around, since we did not
        // tell it that anything had been read.
        let data = unsafe { std::slice::from_raw_parts(self.buffer.add(PAGE), head as usize) };
        let words: Vec<u64> = data
            .chunks_exact(8)
            .map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
            .collect();
        Samples::parse(&words)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `start`, of which no reference is left.
        unsafe { libc::munmap(self.buffer.cast(), PAGE + BUFFER) };
    }
}

impl Samples {
    /// Reads the kernel's records. Each begins with a word of kind (32 bits), flags (16) and size in bytes (16).
    fn parse(mut words: &[u64]) -> Result<Self> {
        let mut stacks = Vec::new();
        while let [header, ..] = *words {
            let size = (header >> 48) as usize / 8;
            ensure!(size > 0 && size <= words.len(), "a sample without an end");
            let (record, rest) = words.split_at(size);
            words = rest;
            match (header as u32, record) {
                (RECORD_SAMPLE, [_, count, chain @ ..]) => {
                    let chain = chain.iter().take(*count as usize).copied();
                    stacks.push(chain.filter(|&at| at < CONTEXT_MAX).collect());
                }
                (RECORD_LOST, [_, _, lost, ..]) => bail!("{lost} samples did not fit"),
                _ => {}
            }
        }
        Ok(Self { stacks })
    }

    /// Sends which functions they were in.
    pub fn report(&self, figure: Figure) -> Result<()> {
        let symbols = Symbols::read()?;
        let mut counts: HashMap<&str, (u64, u64)> = HashMap::new();
        for stack in &self.stacks {
            let names: Vec<_> = stack.iter().map(|&at| symbols.name(at)).collect();
            if let Some(innermost) = names.first() {
                counts.entry(innermost).or_default().0 += 1;
            }
            // Once each, however often it calls itself.
            for name in BTreeSet::from_iter(names) {
                counts.entry(name).or_default().1 += 1;
            }
        }
        let mut functions: Vec<_> = counts
            .into_iter()
            .map(|(name, (own, all))| (name.to_string(), own, all))
            .collect();
        functions.sort_by_key(|(_, own, all)| std::cmp::Reverse((*own, *all)));
        functions.truncate(FUNCTIONS);
        report(BenchEvent::Profile {
            figure,
            samples: self.stacks.len() as u64,
            period_ns: PERIOD,
            functions,
        });
        Ok(())
    }
}

/// The names of the kernel's functions, by address.
struct Symbols(Vec<(u64, String)>);

impl Symbols {
    fn read() -> Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/kallsyms")?))
    }

    fn parse(list: &str) -> Self {
        let parse = |line: &str| {
            let mut fields = line.split_whitespace();
            let address = u64::from_str_radix(fields.next()?, 16).ok()?;
            let is_code = fields.next()?.eq_ignore_ascii_case("t");
            is_code.then_some((address, fields.next()?.to_string()))
        };
        let mut symbols: Vec<_> = list.lines().filter_map(parse).collect();
        symbols.sort_unstable();
        Self(symbols)
    }

    fn name(&self, address: u64) -> &str {
        let behind = self.0.partition_point(|(start, _)| *start <= address);
        behind
            .checked_sub(1)
            .map_or("?", |index| self.0[index].1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let sample = |count: u64| u64::from(RECORD_SAMPLE) | (16 + 8 * count) << 48;
        let words = [
            sample(3),
            3,
            CONTEXT_MAX + 10,
            0x1000,
            0x2000,
            77 | 8 << 48,
            sample(1),
            1,
            0x3000,
        ];
        let samples = Samples::parse(&words).unwrap();
        assert_eq!(samples.stacks, [vec![0x1000, 0x2000], vec![0x3000]]);
        assert!(Samples::parse(&[u64::from(RECORD_LOST) | 24 << 48, 0, 5]).is_err());
        assert!(Samples::parse(&[sample(1), 1]).is_err());
    }

    #[test]
    fn addresses_have_names() {
        let list =
            "0000000000001000 T first\n0000000000002000 t second [luo]\n0000000000001800 d data\n";
        let symbols = Symbols::parse(list);
        let names = [0xfff, 0x1000, 0x1fff, 0x2000, 0x9000].map(|at| symbols.name(at));
        assert_eq!(names, ["?", "first", "first", "second", "second"]);
    }
}
