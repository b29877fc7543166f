// SPDX-License-Identifier: GPL-2.0

//! What the fuzzer found worth keeping, and a short run of its own kind.

use crate::{
    damage::Victim,
    example::{example, FLBS},
};
use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::{fs, path::Path};

/// Bytes that mean no damage.
#[test]
fn no_damage() {
    let report = Victim::default().run(&[]);
    assert_eq!(report.sessions, example());
    assert_eq!(report.flbs.len(), FLBS.len());
    assert_eq!(report.refused, [""; 0]);
}

/// Every file of the corpus, which `make fuzz-merge` adds to. One run leaves nothing behind for the next.
#[test]
fn replayed() {
    let mut victim = Victim::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (mut files, mut refused) = (0, 0);
    for entry in fs::read_dir(&folder).expect("the corpus") {
        let path = entry.expect("a file").path();
        println!("{}", path.display());
        let report = victim.run(&fs::read(&path).expect("its bytes"));
        files += 1;
        refused += usize::from(!report.refused.is_empty());
    }
    assert!(files > 20 && refused > files / 2, "{refused} of {files}");
    assert_eq!(victim.run(&[]).sessions, example());
}

/// Any bytes.
#[test]
fn any_bytes() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut victim = Victim::default();
    let mut refused = 0;
    for _ in 0..5000 {
        let bytes: [u8; 96] = rng.random();
        let len = rng.random_range(1..bytes.len());
        refused += u32::from(!victim.run(&bytes[..len]).refused.is_empty());
    }
    assert!(refused > 2500, "{refused} of 5000 had something refused");
}
