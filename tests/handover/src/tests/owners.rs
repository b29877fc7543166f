// SPDX-License-Identifier: GPL-2.0

//! Pages of the account and of descriptions: whoever names one of them as something else does not get it.

use crate::{
    example::FLBS,
    handover::Malformed,
    locate::{self, block, file, flags, memfd, root, session, Place},
    memory::Memory,
    reader::{self, Report},
    write::{self, Contents, File, Memfd, Range, Session, Slot, Table},
};

/// The tokens of the memfds, in the order in which they are handed over.
const FOLIOS: usize = 0;
const EXTENTS: usize = 1;
const TABLES: usize = 2;

/// The entries of the memfd with a table: a placed range of one page, and the table with that page in its first slot.
const RANGE: usize = 0;
const TABLE: usize = 1;

/// A session with memfds, one with two blocks of files, and so many that there are two blocks of sessions.
fn sessions() -> Vec<Session> {
    let memfd = |contents| Memfd {
        pos: 0,
        size: 512 * 4096,
        seals: 0,
        contents,
    };
    let folios = Contents::Folios {
        folios: vec![(0, 0), (1, 0)],
        array_order: 0,
    };
    let extents = [(3, 1), (5, 1)].map(|extent| Range {
        order: 0,
        extents: vec![extent],
    });
    let mut slots = vec![Slot::Single; 512];
    slots[0] = Slot::Placed(0, 0);
    let tables = Contents::Tables {
        ranges: vec![],
        placed: vec![1],
        tables: vec![Table { index: 0, slots }],
    };
    let memfds = [folios, Contents::Ranges(extents.into()), tables];
    let memfds: Vec<_> = memfds.into_iter().map(|it| Ok(memfd(it))).collect();
    let unknown = (0..65).map(Err).collect();
    let kinds = [memfds, unknown].into_iter();
    let kinds = kinds.chain(std::iter::repeat_n(vec![], 51));
    let session = |(i, kinds): (usize, Vec<Result<Memfd, u64>>)| Session {
        name: format!("session {i}").into_bytes(),
        files: (0..)
            .zip(kinds)
            .map(|(token, kind)| File { token, kind })
            .collect(),
    };
    kinds.enumerate().map(session).collect()
}

/// These, which can be damaged.
struct Handover {
    memory: Memory,
    root: Place,
    sessions: Vec<Session>,
}

impl Handover {
    fn new() -> Self {
        let mut memory = Memory::default();
        let sessions = sessions();
        let root_pa = write::handover(&mut memory, 1, &sessions).root_pa;
        write::flbs(&mut memory, root_pa, FLBS);
        Self {
            memory,
            root: Place::page(root_pa),
            sessions,
        }
    }

    /// Each kind of page that the account has.
    fn account(&self) -> [(&'static str, u64); 7] {
        let memory = &self.memory;
        let sessions = self.root.follow(memory, root::SESSIONS);
        let files = |i| {
            let session = locate::session(memory, self.root.pa, i);
            session.follow(memory, session::FILES)
        };
        [
            ("the root", self.root),
            ("the sessions", sessions),
            ("more sessions", sessions.follow(memory, block::NEXT)),
            ("its own session's files", files(0)),
            ("another session's files", files(1)),
            ("more of these", files(1).follow(memory, block::NEXT)),
            ("the FLBs", self.root.follow(memory, root::FLBS)),
        ]
        .map(|(what, place)| (what, place.pa))
    }

    /// The entry of a memfd in the list of files.
    fn file(&self, token: usize) -> Place {
        let session = locate::session(&self.memory, self.root.pa, 0);
        locate::file(&self.memory, session, token)
    }

    fn memfd(&self, token: usize) -> Place {
        self.file(token).follow(&self.memory, file::DATA)
    }

    /// The entry number `i` of a memfd: those of folios are in an array.
    fn entry(&self, token: usize, i: usize) -> Place {
        let memfd = self.memfd(token);
        match token {
            FOLIOS => Place {
                offset: 16 * i,
                ..self.chunk().follow(&self.memory, 1)
            },
            _ => Place {
                offset: 8 * (memfd::ENTRIES + 2 * i),
                ..memfd
            },
        }
    }

    /// The list of the pages of the array of folios.
    fn chunk(&self) -> Place {
        self.memfd(FOLIOS).follow(&self.memory, memfd::CHUNK)
    }

    fn table(&self) -> Place {
        let entry = self.entry(TABLES, TABLE);
        Place::page((entry.get(&self.memory, 0) & flags::FRAME) << 12)
    }

    /// Replaces the frame in a word, which keeps its flags.
    fn set_frame(&mut self, place: Place, word: usize, pa: u64) {
        let flags = place.get(&self.memory, word) & !flags::FRAME;
        place.set(&mut self.memory, word, flags | pa >> 12);
    }

    fn read(&self) -> Report {
        reader::read(&self.memory, self.root.pa)
    }
}

/// What may name a page: the memfd that is refused for it, and how it is done.
type Claim = (&'static str, usize, fn(&mut Handover, u64));

/// As the user's data.
const DATA: [Claim; 4] = [
    ("a folio", FOLIOS, |it, pa| {
        it.set_frame(it.entry(FOLIOS, 1), 0, pa)
    }),
    ("an extent", EXTENTS, |it, pa| {
        it.set_frame(it.entry(EXTENTS, 1), 0, pa)
    }),
    ("a slot", TABLES, |it, pa| it.set_frame(it.table(), 7, pa)),
    ("a placed slot", TABLES, |it, pa| {
        it.set_frame(it.entry(TABLES, RANGE), 0, pa);
        it.set_frame(it.table(), 0, pa);
    }),
];

/// As a page of a description.
const DESCRIPTIONS: [Claim; 5] = [
    ("an array", FOLIOS, |it, pa| {
        it.chunk().set(&mut it.memory, 1, pa)
    }),
    ("a chunk of an array", FOLIOS, |it, pa| {
        it.memfd(FOLIOS).set(&mut it.memory, memfd::CHUNK, pa);
    }),
    ("a description", FOLIOS, |it, pa| {
        it.file(FOLIOS).set(&mut it.memory, file::DATA, pa);
    }),
    ("a description of extents", EXTENTS, |it, pa| {
        it.file(EXTENTS).set(&mut it.memory, file::DATA, pa);
    }),
    ("a table", TABLES, |it, pa| {
        it.set_frame(it.entry(TABLES, TABLE), 0, pa)
    }),
];

#[test]
fn whole() {
    let it = Handover::new();
    let report = it.read();
    assert_eq!(report.sessions, it.sessions);
    assert_eq!(report.refused, [""; 0]);
    let mut account = it.account().map(|(_, pa)| pa).to_vec();
    account.sort_unstable();
    let mut found = report.account;
    found.sort_unstable();
    assert_eq!(found, account);
}

/// Fails unless `pa` is preserved for nobody who claims it like this, and all else is good.
#[track_caller]
fn refused(what: &str, pa: u64, (claim, token, damage): Claim) {
    let mut it = Handover::new();
    damage(&mut it, pa);
    let report = it.read();
    let why = Malformed::NotPreserved(pa);
    let refused = format!("[session 0] {token:#x}: {why:?}");
    assert_eq!(report.refused, [refused], "{what} as {claim}");
    it.sessions[0].files.remove(token);
    assert_eq!(report.sessions, it.sessions, "{what} as {claim}");
}

#[test]
fn pages_of_the_account() {
    for (what, pa) in Handover::new().account() {
        for claim in DATA.into_iter().chain(DESCRIPTIONS) {
            refused(what, pa, claim);
        }
    }
}

#[test]
fn pages_of_descriptions() {
    let it = Handover::new();
    let array = it.chunk().follow(&it.memory, 1);
    for (owner, what, place) in [
        (FOLIOS, "a description", it.memfd(FOLIOS)),
        (FOLIOS, "a chunk of an array", it.chunk()),
        (FOLIOS, "an array", array),
        (EXTENTS, "a description of extents", it.memfd(EXTENTS)),
        (TABLES, "a table", it.table()),
    ] {
        // Nobody knows what a memfd that comes later is described in.
        for claim in DATA.into_iter().filter(|(_, token, _)| *token >= owner) {
            refused(what, place.pa, claim);
        }
    }
}

/// A list of files is of the session that comes first with it, or of the account's other pages.
#[test]
fn lists_of_two() {
    let intact = Handover::new();
    for (what, pa) in intact.account() {
        // It has no files of its own.
        let mut it = Handover::new();
        let session = locate::session(&it.memory, it.root.pa, 2);
        session.set(&mut it.memory, session::FILES, pa);
        session.set(&mut it.memory, session::NR_FILES, 1);
        let report = it.read();
        let why = Malformed::Shared(pa);
        assert_eq!(report.refused, [format!("session: {why:?}")], "{what}");
        it.sessions.remove(2);
        assert_eq!(report.sessions, it.sessions, "{what}");
    }
}

/// Of two sessions of one name, and of two files of one token, there is the first.
#[test]
fn twins() {
    let mut it = Handover::new();
    let [first, second] = [0, 1].map(|i| locate::session(&it.memory, it.root.pa, i));
    for word in session::NAME..session::NAME + session::NAME_WORDS {
        let name = first.get(&it.memory, word);
        second.set(&mut it.memory, word, name);
    }
    let token = it.file(FOLIOS).get(&it.memory, file::TOKEN);
    it.file(TABLES).set(&mut it.memory, file::TOKEN, token);
    let report = it.read();
    assert_eq!(
        report.refused,
        ["[session 0] 0x0: twice", "[session 0]: twice"]
    );
    it.sessions[0].files.remove(TABLES);
    it.sessions.remove(1);
    assert_eq!(report.sessions, it.sessions);
}
