// SPDX-License-Identifier: GPL-2.0

//! What failed, and how it is told as one word: `make model STEPS=` does it again.

use crate::cases::concurrent::Round;
use crate::hex::{from_hex, hex};
use anyhow::{ensure, Context, Result};
use luo_model::{Layout, Step};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The first bytes of the hash before what it is of: what is damaged would often be other steps.
const SUM: usize = 4;

/// Something to do again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Trial {
    /// Of `model`.
    Steps(Steps),
    /// Of `concurrent`.
    Round(Round),
}

/// Steps that begin with nothing, and what there is for them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Steps {
    /// Who does them.
    pub layout: Layout,
    /// Whether others are at work beside it.
    pub rivals: bool,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Trial {
    /// The word for it, which these tests understand, but not those before and after a change of the model.
    pub fn to_word(&self) -> Result<String> {
        let bytes = postcard::to_allocvec(self)?;
        Ok(hex(&Sha256::digest(&bytes)[..SUM]) + &hex(&bytes))
    }

    /// What a word stands for. One that is damaged, even in a single digit, is an error.
    pub fn of_word(word: &str) -> Result<Self> {
        let all = from_hex(word).context("STEPS= is not in hexadecimal digits")?;
        let parts = all.split_at_checked(SUM);
        let (sum, bytes) = parts.context("STEPS= is too short")?;
        ensure!(
            Sha256::digest(bytes)[..SUM] == *sum,
            "STEPS= is not as it was told: its sum is wrong"
        );
        postcard::from_bytes(bytes).context("STEPS= is of another model")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luo_model::{Generator, World};

    fn trial(steps: usize) -> Trial {
        let layout = Layout {
            processes: 3,
            threads: 2,
            slots: 12,
            owner: b't',
            alone: true,
            memfd_format: "memfd".into(),
        };
        let mut world = World::new(layout.clone(), 0);
        let mut generator = Generator::new(1);
        let steps = (0..steps).map(|_| {
            let step = generator.step(&world);
            let _ = world.apply(&step);
            step
        });
        Trial::Steps(Steps {
            layout,
            rivals: true,
            steps: steps.collect(),
        })
    }

    #[test]
    fn a_word_stands_for_the_same_steps() {
        for steps in [0, 1, 3000] {
            let trial = trial(steps);
            let word = trial.to_word().unwrap();
            assert_eq!(Trial::of_word(&word).unwrap(), trial);
        }
    }

    #[test]
    fn a_damaged_word_is_an_error() {
        let word = trial(6).to_word().unwrap();
        for at in 0..word.len() {
            assert!(Trial::of_word(&word[..at]).is_err(), "{at} digits of it");
            let (before, rest) = word.split_at(at);
            for other in ["0", "7", "e", "x", ""] {
                let damaged = [before, other, &rest[1..]].concat();
                let read = Trial::of_word(&damaged);
                assert_eq!(read.is_ok(), damaged == word, "{other:?} at {at}");
            }
        }
        assert!(Trial::of_word(&(word + "00")).is_err());
    }
}
