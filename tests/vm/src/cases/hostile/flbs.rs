// SPDX-License-Identifier: GPL-2.0

//! Damage of the entries of the table of FLBs, which are those of the recorder. There is one table in a handover, so
//! each kind takes a kernel of its own.

use super::super::common::debugfs;
use super::super::common::forger::{kernel_code, Forger};
use super::super::common::luo::Device;
use super::super::common::modules::{self, Recorder};
use super::super::common::{refused, still_works};
use super::format::Format;
use super::pages::{Owner, Pages};
use super::press;
use super::victim::{self, Victim, VICTIM};
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use luo_handover::locate::{self, file, flb, flbs, Place};
use luo_handover::memory::Memory;
use luo_handover::write::{self, File, Session};
use nix::errno::Errno;

const X: &str = "luo-recorder-x-v1";
const Y: &str = "luo-recorder-y-v1";
/// A file that depends on both, and one that depends on x.
const FILES: [(&str, &str, u64); 2] = [
    ("both", "luo-recorder-a-v1", 1),
    ("only x", "luo-recorder-b-v1", 2),
];
/// The values of x and y.
const VALUES: [u64; 2] = [100, 101];
/// The number of a good session of memfds.
const MEMFDS: usize = 2;

/// The recorder finds what it is told to look at, and refuses it.
const STRANGE: Result<u64, Errno> = Err(Errno::EBADMSG);
/// Nothing was handed over by that name.
const UNKNOWN: Result<u64, Errno> = Err(Errno::ENOENT);

/// The table, whose first entries are x and y, and then one of nobody's.
struct Table<'a> {
    memory: &'a mut Memory,
    table: Place,
    /// A page that is not preserved.
    lost: u64,
    /// A page of the kernel itself.
    kernel: u64,
    /// The root of the handover.
    root: u64,
}

impl Table<'_> {
    /// Replaces a word of an entry.
    fn set(&mut self, number: usize, word: usize, value: u64) {
        locate::flb(self.table, number).set(self.memory, word, value);
    }

    /// The data of an entry.
    fn data(&self, number: usize) -> u64 {
        locate::flb(self.table, number).get(self.memory, flb::DATA)
    }

    /// Replaces bytes of the name of an entry, from one of them on.
    fn rename(&mut self, number: usize, from: usize, bytes: &[u8]) {
        let place = locate::flb(self.table, number);
        self.memory.put(place.pa, place.offset + from, bytes);
    }
}

/// One kind of damage.
struct Kind {
    name: &'static str,
    damage: fn(&mut Table<'_>),
    /// What is told to who asks for x and for y: the values, if these can be used.
    answers: [Result<u64, Errno>; 2],
    /// The callbacks of FLBs until all files are finished.
    record: &'static [&'static str],
    /// What the log says of it, if that is not a driver's affair.
    says: &'static str,
}

impl Kind {
    /// What stays: the root, the table of which one is nobody's, and what was not finished.
    fn kept(&self) -> Vec<Owner> {
        let finish = [X_FINISH, Y_FINISH];
        let is_there = |(_, call): &(usize, &str)| !self.record.contains(call);
        let data = finish.into_iter().enumerate().filter(is_there);
        let table = (self.answers != [UNKNOWN; 2]).then_some(Owner::Flbs);
        let flbs = data.map(|(number, _)| Owner::Flb(number));
        [Owner::Root].into_iter().chain(table).chain(flbs).collect()
    }
}

const NAMELESS: &str = "is refused: it has no name of its own";
const MORE_FILES: &str = "more files depend on it than the previous kernel said";

const ASKED: &str = "x.retrieve";
const ASKED_Y: &str = "y.retrieve";
const X_FINISH: &str = "x.finish";
const Y_FINISH: &str = "y.finish";

const GOOD: [Result<u64, Errno>; 2] = [Ok(VALUES[0]), Ok(VALUES[1])];
/// The callbacks where both are good.
const BOTH: &[&str] = &[ASKED, ASKED_Y, Y_FINISH, X_FINISH];
/// Where one of them is not there.
const ONLY_X: &[&str] = &[ASKED, X_FINISH];
const ONLY_Y: &[&str] = &[ASKED_Y, Y_FINISH];

const KINDS: &[Kind] = &[
    Kind {
        name: "a name that does not end",
        damage: |it| it.rename(0, X.len(), &[b'x'; 48 - X.len()]),
        answers: [UNKNOWN, GOOD[1]],
        record: ONLY_Y,
        says: NAMELESS,
    },
    Kind {
        name: "no name, bytes behind the end of one, and as many entries as can be",
        damage: |it| {
            it.rename(0, X.len() + 1, &[b'x'; 48 - X.len() - 1]);
            it.rename(1, 0, &[0; 48]);
            it.table.set(it.memory, flbs::COUNT, 63);
        },
        answers: [GOOD[0], UNKNOWN],
        record: ONLY_X,
        says: NAMELESS,
    },
    Kind {
        name: "x twice, the second time with the data of y",
        damage: |it| {
            let other = it.data(1);
            it.rename(2, 0, X.as_bytes());
            it.set(2, flb::DATA, other);
            it.set(2, flb::COUNT, 2);
        },
        answers: GOOD,
        record: BOTH,
        says: NAMELESS,
    },
    Kind {
        name: "x instead of y",
        damage: |it| {
            it.rename(1, 0, X.as_bytes());
        },
        answers: [GOOD[0], UNKNOWN],
        record: ONLY_X,
        says: NAMELESS,
    },
    Kind {
        name: "no files of x",
        damage: |it| it.set(0, flb::COUNT, 0),
        answers: [Err(Errno::ENODATA), GOOD[1]],
        record: ONLY_Y,
        says: MORE_FILES,
    },
    Kind {
        name: "fewer files of x than there are",
        damage: |it| it.set(0, flb::COUNT, 1),
        answers: GOOD,
        // Too early, with the first of them.
        record: &[ASKED, ASKED_Y, X_FINISH, Y_FINISH],
        says: MORE_FILES,
    },
    Kind {
        name: "data at zero, and data not preserved",
        damage: |it| {
            it.set(0, flb::DATA, 0);
            it.set(1, flb::DATA, it.lost);
        },
        answers: [STRANGE, STRANGE],
        record: &[ASKED, ASKED_Y],
        says: "",
    },
    Kind {
        name: "data in the kernel, and data beyond memory",
        damage: |it| {
            it.set(0, flb::DATA, it.kernel);
            it.set(1, flb::DATA, Victim::BEYOND);
        },
        answers: [STRANGE, STRANGE],
        record: &[ASKED, ASKED_Y],
        says: "",
    },
    Kind {
        name: "data at the last address, and data not aligned",
        damage: |it| {
            it.set(0, flb::DATA, u64::MAX);
            let within = it.data(1) + 8;
            it.set(1, flb::DATA, within);
        },
        answers: [STRANGE, STRANGE],
        record: &[ASKED, ASKED_Y],
        says: "",
    },
    Kind {
        name: "the data of y for x, and the root for y",
        damage: |it| {
            let other = it.data(1);
            it.set(0, flb::DATA, other);
            it.set(1, flb::DATA, it.root);
        },
        answers: [STRANGE, STRANGE],
        record: &[ASKED, ASKED_Y],
        says: "",
    },
    Kind {
        name: "a table of none",
        damage: |it| it.table.set(it.memory, flbs::COUNT, 0),
        answers: [UNKNOWN, UNKNOWN],
        record: &[],
        says: "",
    },
    // The last one, as it keeps the recorder for ever, and with it luo.ko.
    Kind {
        name: "as many files of x as can be, and one more of y than there are",
        damage: |it| {
            it.set(0, flb::COUNT, u64::MAX);
            it.set(1, flb::COUNT, 2);
        },
        answers: GOOD,
        record: &[ASKED, ASKED_Y],
        says: "",
    },
];

/// Looks at what came of the last kind, and forges the next one: a kernel for each, and one more.
pub fn stage(ctx: &mut Ctx) -> Result<()> {
    let Some(forger) = Forger::new()? else {
        return ctx.skip("there is no luo_forger.ko in this VM");
    };
    let number = ctx.stage() - 1;
    if let Some(last) = number.checked_sub(1) {
        let kind = &KINDS[last];
        let recorder =
            look(ctx, kind, &forger).with_context(|| format!("damage: {}", kind.name))?;
        if number == KINDS.len() {
            return end(&recorder);
        }
        recorder.remove()?;
        ctx.rmmod()?;
    } else {
        modules::need(ctx, Recorder::NAME)?;
    }
    forge(ctx, &KINDS[number], &forger)?;
    ctx.go_on();
    Ok(())
}

fn end(recorder: &Recorder) -> Result<()> {
    // Files of x and of y are still to come, it says: so both stay.
    for _ in 0..2 {
        ensure!(answers(recorder) == GOOD, "{:?}", answers(recorder));
    }
    recorder.expect("they are not made again", "")?;
    let left = format!("outgoing 0 incoming {}", u64::MAX - 2);
    debugfs::has("flbs", X, Some(&left))?;
    debugfs::has("flbs", Y, Some("outgoing 0 incoming 1"))?;
    let removed = modules::remove(Recorder::NAME);
    refused("their module", removed, Errno::EWOULDBLOCK)?;
    still_works(&Device::open()?.create_session("in the end")?)
}

/// What the recorder writes into a page: see `struct rec_page` of tests/modules/recorder/recorder.h.
fn page(memory: &mut Memory, id: u64, kind: u64, frozen: u64) -> u64 {
    const MAGIC: u64 = 0x1_e506_0d3c;
    let pa = memory.allocate(0);
    for (word, value) in [MAGIC, id, kind, frozen].into_iter().enumerate() {
        Place::page(pa).set(memory, word, value);
    }
    pa
}

fn forge(ctx: &mut Ctx, kind: &Kind, forger: &Forger) -> Result<()> {
    let mut memory = forger.memory();
    let mut sessions = Vec::new();
    for (number, (name, _, id)) in FILES.into_iter().enumerate() {
        let data = page(&mut memory, id, number as u64, 1);
        sessions.push(Session {
            name: name.into(),
            files: vec![File {
                token: id,
                kind: Err(data),
            }],
        });
    }
    sessions.push(victim::session("memfds", Format::Extents));
    let root = write::handover(&mut memory, 1, &sessions).root_pa;
    for (number, (_, compatible, _)) in FILES.into_iter().enumerate() {
        let session = locate::session(&memory, root, number);
        let place = locate::file(&memory, session, 0);
        let start = place.offset + 8 * file::COMPATIBLE;
        memory.put(place.pa, start, compatible.as_bytes());
    }
    let data = [0, 1].map(|kind| page(&mut memory, VALUES[kind as usize], kind, 0));
    let flbs = [(X, data[0], 2), (Y, data[1], 1), ("nobody's", 7, 1)];
    let table = Place::page(write::flbs(&mut memory, root, &flbs));
    let mut pages = victim::fill(&memory, forger, root)?;
    for (number, pa) in data.into_iter().enumerate() {
        pages.add(pa, Owner::Flb(number));
    }
    let lost = memory.allocate_lost();
    (kind.damage)(&mut Table {
        memory: &mut memory,
        table,
        lost,
        kernel: kernel_code()?,
        root,
    });
    forger.publish(&memory, root)?;
    pages.give_along(ctx, forger)
}

fn answers(recorder: &Recorder) -> [Result<u64, Errno>; 2] {
    ["incoming", "incoming-y"].map(|side| recorder.value(side))
}

fn look(ctx: &mut Ctx, kind: &Kind, forger: &Forger) -> Result<Recorder> {
    ctx.log().lines()?;
    ctx.insmod("")?;
    let recorder = Recorder::new(ctx)?;
    // Asked again, it is the same.
    for _ in 0..2 {
        let told = answers(&recorder);
        ensure!(told == kind.answers, "{told:?}");
    }
    let device = Device::open()?;
    for (name, _, token) in FILES.into_iter().rev() {
        let session = device.retrieve_session(name).context(name)?;
        drop(session.retrieve(token).context(name)?);
        session.finish().context(name)?;
    }
    let mut record = recorder.take()?;
    record.retain(|line| line.contains('.'));
    ensure!(record == kind.record, "callbacks: {record:?}");
    let lines = ctx.log().lines()?;
    for (name, answer) in [X, Y].into_iter().zip(kind.answers) {
        let says = format!("FLB [{name}] cannot be finished: EBADMSG");
        let said = lines.iter().any(|line| line.contains(&says));
        ensure!(said == (answer == STRANGE), "{says:?} in {lines:#?}");
    }
    for says in [NAMELESS, MORE_FILES] {
        let said = lines.iter().any(|line| line.contains(says));
        ensure!(said == (kind.says == says), "{says:?} in {lines:#?}");
    }
    let memfds = device.retrieve_session("memfds")?;
    victim::check(&memfds.retrieve(VICTIM)?, Format::Extents, MEMFDS, VICTIM)?;
    memfds.finish()?;
    let pressed = press(ctx)?;
    Pages::of_previous(ctx)?.unchanged(forger, &kind.kept())?;
    drop(pressed);
    still_works(&device.create_session("afterwards")?)?;
    Ok(recorder)
}
