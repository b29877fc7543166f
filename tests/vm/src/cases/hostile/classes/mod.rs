// SPDX-License-Identifier: GPL-2.0

//! What may be wrong with a session that the previous kernel handed over, and what has to come of it.

mod account;
mod arrays;
mod descriptions;
mod files;
mod folios;
mod frames;
mod sessions;
mod tables;

use super::format::Format;
use super::victim::{Victim, VICTIM};
use nix::errno::Errno;
use std::ops::Range;

/// What the log says of this is found out in the file: not of a memfd that nobody wants.
pub const ONE_PLACE: &str = "two pages in one place";

/// What is wrong with it depends on bytes that are anything.
const REFUSED: &str = "a memfd of the previous kernel is refused";

/// What has to come of it.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// The session is not there, and the log says this of it when the module is inserted.
    Gone(&'static str),
    /// The session is there, but its first file fails with this error, and the log says this.
    Lost(Errno, &'static str),
    /// The first file is there, but not the second, and the log says this when the module is inserted.
    Alone(&'static str),
    /// All of it is there, but this extent of the first file reads as zeroes.
    Zeroes(usize),
    /// All of it is there.
    Good,
}

impl Outcome {
    /// Whether the file with this token is there, and its session is finished: then it can be handed on.
    pub fn has_finished(self, token: u64) -> bool {
        match self {
            Self::Gone(_) | Self::Lost(Errno::ENOENT, _) => false,
            Self::Lost(..) => token != VICTIM,
            Self::Alone(_) => token == VICTIM,
            Self::Zeroes(_) | Self::Good => true,
        }
    }
}

/// One way of being damaged.
pub struct Class {
    /// What is damaged.
    pub name: &'static str,
    /// The encoding of its files.
    pub format: Format,
    /// Does the damage.
    pub damage: fn(&mut Victim<'_>),
    /// What has to come of it.
    pub outcome: Outcome,
}

impl Class {
    /// The name of the session: an array, or a table, may be damaged in the same way in two formats.
    pub fn session(&self) -> String {
        match self.format {
            Format::Many => format!("extents: {}", self.name),
            Format::Singles => format!("singles: {}", self.name),
            _ => self.name.into(),
        }
    }
}

const fn gone(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    Class {
        name,
        format: Format::Extents,
        damage,
        outcome: Outcome::Gone(why),
    }
}

const fn lost(
    name: &'static str,
    format: Format,
    why: &'static str,
    damage: fn(&mut Victim<'_>),
) -> Class {
    let errno = Errno::EINVAL;
    let outcome = Outcome::Lost(errno, why);
    Class {
        name,
        format,
        damage,
        outcome,
    }
}

const fn v2(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::V2, why, damage)
}

const fn extents(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::Extents, why, damage)
}

const fn folios(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::Folios, why, damage)
}

const fn tables(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::Tables, why, damage)
}

const fn singles(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::Singles, why, damage)
}

const fn many(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::Many, why, damage)
}

/// Another errno.
const fn with(errno: Errno, class: Class) -> Class {
    let outcome = match class.outcome {
        Outcome::Lost(_, why) => Outcome::Lost(errno, why),
        other => other,
    };
    Class { outcome, ..class }
}

const fn good(name: &'static str, format: Format) -> Class {
    Class {
        name,
        format,
        damage: |_| {},
        outcome: Outcome::Good,
    }
}

/// The number of the first one, which is good.
pub const FIRST: usize = 0;
/// The numbers of those that claim what the account is in.
pub const ACCOUNT: Range<usize> = 1..1 + 5 * account::WAYS;

/// Each of them, among good ones.
pub const CLASSES: &[&[Class]] = &[
    &[good("first", Format::Extents)],
    account::ROOT,
    account::SESSIONS,
    account::FILES,
    account::FLBS,
    account::TREE,
    &[good("behind the account", Format::V2)],
    sessions::SESSIONS,
    &[good("among sessions", Format::V2)],
    files::FILES,
    &[good("among files", Format::Extents)],
    descriptions::DESCRIPTIONS,
    &[good("among descriptions", Format::V2)],
    arrays::ARRAYS_V2,
    arrays::ARRAYS_EXTENTS,
    arrays::ARRAYS_MANY,
    &[good("among arrays", Format::Many)],
    frames::FRAMES,
    &[good("among frames", Format::Tables)],
    tables::TABLES,
    &[good("among tables", Format::Singles)],
    tables::SINGLES,
    &[good("among single pages", Format::Folios)],
    folios::FOLIOS,
    &[good("last", Format::V2)],
];
