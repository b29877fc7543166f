// SPDX-License-Identifier: GPL-2.0

//! All test cases, by module. To add one see README.md beside this crate's manifest.

mod basic;
mod handover;
mod selftests;

use crate::test::Test;
use luo_vm_protocol::TestInfo;

const MODULES: &[(&str, &[Test])] = &[
    ("basic", basic::TESTS),
    ("handover", handover::TESTS),
    ("selftests", selftests::TESTS),
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
