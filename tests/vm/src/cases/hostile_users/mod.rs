// SPDX-License-Identifier: GPL-2.0

//! Users who are up to no good: what they reach, and what they do to others.

mod exec;
mod in_flight;
mod in_flight_incoming;
mod limited;
mod limited_memfd;
mod reach;
mod shared;
mod types;
mod uring;

use crate::test::{Config, Test};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("device", Config::new(), &[reach::device]),
    Test::new("kexec_by_others", Config::new(), &[reach::kexec_by_others]),
    Test::new("passed_session", Config::new(), &[reach::passed_session]),
    Test::new(
        "passed_incoming",
        Config::new(),
        &[reach::hand_on, reach::passed_incoming],
    ),
    Test::new(
        "shared_session",
        Config::new(),
        &[shared::hand_on, shared::arrived],
    ),
    Test::new("every_type", Config::new(), &[types::every_type]),
    Test::new("limited_sessions", Config::new(), &[limited::sessions]),
    Test::new("limited_files", Config::new(), &[limited::files]),
    Test::new(
        "limited_memfds",
        limited_memfd::CONFIG,
        &[limited_memfd::memfds],
    ),
    Test::new("io_uring", Config::new(), &[uring::io_uring]),
    Test::new("io_uring_close", Config::new(), &[uring::close_in_flight]),
    Test::new("closed_in_flight", Config::new(), &[in_flight::closed]),
    Test::new("fork_in_flight", Config::new(), &[in_flight::forked]),
    Test::new("exec_in_flight", Config::new(), &[exec::execed]),
    Test::new("signals", Config::new(), &[in_flight::signals]),
    Test::new(
        "signals_incoming",
        Config::new(),
        &[in_flight_incoming::hand_on, in_flight_incoming::signals],
    ),
    Test::new(
        "closed_incoming",
        Config::new(),
        &[in_flight_incoming::hand_on, in_flight_incoming::closed],
    ),
    Test::new(
        "let_go_incoming",
        Config::new(),
        &[in_flight_incoming::hand_on, in_flight_incoming::let_go],
    ),
];
