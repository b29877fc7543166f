// SPDX-License-Identifier: GPL-2.0

//! All test cases, by module. To add one see README.md beside this crate's manifest.

mod basic;
mod chain;
mod client;
mod common;
mod concurrent;
mod concurrent_incoming;
mod cost;
mod cross;
mod cross_flb;
mod detectors;
mod device;
mod direction;
mod extensions;
mod faults;
mod faults_file;
mod faults_incoming;
mod faults_kexec;
mod faults_memory;
mod faults_starved;
mod fds;
mod flb;
mod flb_unlinked;
mod frozen;
mod handlers;
mod handover;
mod hostile;
mod hostile_users;
mod ioctl_abi;
mod kexec_refused;
mod kexec_waits;
mod lifetime;
mod listing;
mod luoctl;
mod luoctl_refused;
mod memfd_accounting;
mod memfd_charge;
mod memfd_collapsed;
mod memfd_interrupt;
mod memfd_kexec;
mod memfd_memory;
mod memfd_model;
mod memfd_moved;
mod memfd_poisoned;
mod memfd_punched;
mod memfd_replaced;
mod memfd_retrieved;
mod memfd_seals;
mod memfd_sizes;
mod memfd_vast;
mod model;
mod module;
mod names;
mod order;
mod order_each;
mod prepare;
mod races;
mod races_kexec;
mod selftests;
mod signalled;
mod soak;
mod vmm;
mod watching;
mod writeback;

use crate::test::Test;
use luo_vm_protocol::TestInfo;

const MODULES: &[(&str, &[Test])] = &[
    ("basic", basic::TESTS),
    ("chain", chain::TESTS),
    ("client", client::TESTS),
    ("concurrent", concurrent::TESTS),
    ("concurrent_incoming", concurrent_incoming::TESTS),
    ("cost", cost::TESTS),
    ("cross", cross::TESTS),
    ("cross_flb", cross_flb::TESTS),
    ("detectors", detectors::TESTS),
    ("device", device::TESTS),
    ("direction", direction::TESTS),
    ("extensions", extensions::TESTS),
    ("faults", faults::TESTS),
    ("faults_file", faults_file::TESTS),
    ("faults_incoming", faults_incoming::TESTS),
    ("faults_kexec", faults_kexec::TESTS),
    ("faults_memory", faults_memory::TESTS),
    ("faults_starved", faults_starved::TESTS),
    ("fds", fds::TESTS),
    ("flb", flb::TESTS),
    ("flb_unlinked", flb_unlinked::TESTS),
    ("frozen", frozen::TESTS),
    ("handover", handover::TESTS),
    ("handlers", handlers::TESTS),
    ("hostile", hostile::TESTS),
    ("hostile_users", hostile_users::TESTS),
    ("ioctl_abi", ioctl_abi::TESTS),
    ("kexec_refused", kexec_refused::TESTS),
    ("kexec_waits", kexec_waits::TESTS),
    ("lifetime", lifetime::TESTS),
    ("memfd_accounting", memfd_accounting::TESTS),
    ("memfd_charge", memfd_charge::TESTS),
    ("memfd_collapsed", memfd_collapsed::TESTS),
    ("memfd_interrupt", memfd_interrupt::TESTS),
    ("listing", listing::TESTS),
    ("luoctl", luoctl::TESTS),
    ("luoctl_refused", luoctl_refused::TESTS),
    ("memfd_kexec", memfd_kexec::TESTS),
    ("memfd_memory", memfd_memory::TESTS),
    ("memfd_model", memfd_model::TESTS),
    ("memfd_moved", memfd_moved::TESTS),
    ("memfd_poisoned", memfd_poisoned::TESTS),
    ("memfd_punched", memfd_punched::TESTS),
    ("memfd_replaced", memfd_replaced::TESTS),
    ("memfd_retrieved", memfd_retrieved::TESTS),
    ("memfd_seals", memfd_seals::TESTS),
    ("memfd_sizes", memfd_sizes::TESTS),
    ("memfd_vast", memfd_vast::TESTS),
    ("model", model::TESTS),
    ("module", module::TESTS),
    ("names", names::TESTS),
    ("order", order::TESTS),
    ("races", races::TESTS),
    ("races_kexec", races_kexec::TESTS),
    ("order_each", order_each::TESTS),
    ("prepare", prepare::TESTS),
    ("selftests", selftests::TESTS),
    ("signalled", signalled::TESTS),
    ("soak", soak::TESTS),
    ("vmm", vmm::TESTS),
    ("watching", watching::TESTS),
    ("writeback", writeback::TESTS),
];

/// All tests, for the harness.
pub fn list() -> Vec<TestInfo> {
    MODULES
        .iter()
        .flat_map(|(module, tests)| tests.iter().map(|test| test.info(module)))
        .collect()
}

/// The test with this full name, `module::name`.
pub fn find(name: &str) -> Option<&'static Test> {
    let (module, name) = name.split_once("::")?;
    let (_, tests) = MODULES.iter().find(|(m, _)| *m == module)?;
    tests.iter().find(|test| test.name == name)
}
