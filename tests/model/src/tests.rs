// SPDX-License-Identifier: GPL-2.0

//! The model against the contract, and the tools against their purpose.

use crate::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn layout() -> Layout {
    Layout {
        processes: 2,
        threads: 2,
        slots: 12,
        owner: b't',
        alone: true,
        memfd_format: "memfd".into(),
    }
}

/// A world, and one thread that does things in it.
struct Player {
    world: World,
    process: u8,
}

impl Player {
    fn new() -> Self {
        Self {
            world: World::new(layout(), 0),
            process: 0,
        }
    }

    fn does(&mut self, command: Command) -> Answer {
        let by = Worker {
            process: self.process,
            thread: 0,
        };
        self.world.apply(&Step { by, command })
    }

    fn on(&mut self, session: Slot, request: Request) -> Answer {
        self.does(Command::Session(session, request, Shape::Good))
    }

    fn creates(&mut self, name: u8, slot: Slot) -> Answer {
        let request = DeviceRequest::Create(Name::Plain(name), slot);
        self.does(Command::Device(request, Shape::Good))
    }

    fn takes(&mut self, name: u8, slot: Slot) -> Answer {
        let request = DeviceRequest::Retrieve(Name::Plain(name), slot);
        self.does(Command::Device(request, Shape::Good))
    }

    /// Puts a new file into a session.
    fn preserves(&mut self, session: Slot, kind: FileKind, token: u64) -> Answer {
        self.does(Command::NewFile(kind, 7, 7))?;
        self.on(session, Request::Preserve { file: 7, token })
    }

    fn tokens(&mut self, session: Slot) -> Vec<u64> {
        let list = Request::List { start: 0, room: 99 };
        match self.on(session, list) {
            Ok(Told::Files { entries, .. }) => entries.iter().map(|entry| entry.token).collect(),
            other => panic!("{other:?}"),
        }
    }
}

const DONE: Answer = Ok(Told::Nothing);

#[test]
fn names_are_taken_until_the_last_descriptor_is_closed() {
    let mut player = Player::new();
    assert_eq!(player.creates(1, 0), DONE);
    assert_eq!(player.creates(1, 1), Err(Errno::EEXIST));
    assert_eq!(player.does(Command::Dup(0, 2)), DONE);
    assert_eq!(player.does(Command::Close(0)), DONE);
    assert_eq!(player.creates(1, 1), Err(Errno::EEXIST));
    assert_eq!(player.does(Command::Send(2)), DONE);
    assert_eq!(player.does(Command::Kill(0)), DONE);
    assert_eq!(
        player.creates(1, 1),
        Err(Errno::EEXIST),
        "it is in the socket"
    );
    player.process = 1;
    assert_eq!(player.does(Command::Receive(3)), DONE);
    assert_eq!(player.does(Command::Kill(1)), DONE);
    assert_eq!(player.creates(1, 1), DONE);
}

#[test]
fn a_file_is_in_one_session_once() {
    let mut player = Player::new();
    player.creates(1, 0).unwrap();
    player.creates(2, 1).unwrap();
    assert_eq!(player.preserves(0, FileKind::Memfd, 1), DONE);
    let again = |token| Request::Preserve { file: 7, token };
    assert_eq!(player.on(0, again(1)), Err(Errno::EEXIST));
    assert_eq!(player.on(0, again(2)), Err(Errno::EBUSY));
    assert_eq!(player.on(1, again(1)), Err(Errno::EBUSY));
    assert_eq!(player.on(0, Request::Unpreserve(1)), DONE);
    assert_eq!(player.on(1, again(1)), DONE);
    assert_eq!(player.preserves(0, FileKind::Null, 1), Err(Errno::ENOENT));
    let itself = Request::Preserve { file: 0, token: 1 };
    assert_eq!(player.on(0, itself), Err(Errno::ENOENT));
}

#[test]
fn a_prepared_session_stays_as_it_is() {
    let mut player = Player::new();
    player.creates(1, 0).unwrap();
    player.preserves(0, FileKind::Memfd, 1).unwrap();
    player.on(0, Request::Prepare).unwrap();
    assert_eq!(player.preserves(0, FileKind::Memfd, 2), Err(Errno::EBUSY));
    assert_eq!(player.on(0, Request::Unpreserve(9)), Err(Errno::EBUSY));
    player.on(0, Request::Cancel).unwrap();
    assert_eq!(player.on(0, Request::Unpreserve(9)), Err(Errno::ENOENT));
    assert_eq!(player.on(0, Request::Unpreserve(1)), DONE);
}

#[test]
fn an_ordered_session_goes_by_the_order() {
    let mut player = Player::new();
    player.creates(1, 0).unwrap();
    for token in [5, 3, 4] {
        player.preserves(0, FileKind::RecorderA, token).unwrap();
    }
    player.on(0, Request::SetFlags(1)).unwrap();
    assert_eq!(player.on(0, Request::Unpreserve(3)), Err(Errno::EBUSY));
    assert_eq!(player.on(0, Request::SetFlags(2)), Err(Errno::EOPNOTSUPP));
    player.world.kexec();
    player.takes(1, 0).unwrap();
    assert_eq!(player.tokens(0), [5, 3, 4]);
    let retrieve = |token| Request::Retrieve { token, to: 1 };
    player.on(0, Request::SetFlags(1)).unwrap();
    assert_eq!(player.on(0, retrieve(3)), Err(Errno::EBUSY));
    assert_eq!(player.on(0, retrieve(9)), Err(Errno::ENOENT));
    // One that failed had its turn.
    player.does(Command::FailNext(Callback::Retrieve)).unwrap();
    assert_eq!(player.on(0, retrieve(5)), Err(Errno::EIO));
    assert_eq!(player.on(0, retrieve(3)), DONE);
    assert_eq!(
        player.on(0, retrieve(5)),
        Err(Errno::EIO),
        "once and for all"
    );
    assert_eq!(player.on(0, retrieve(3)), DONE, "as often as one likes");
}

#[test]
fn what_was_written_arrives() {
    let mut player = Player::new();
    player.creates(1, 0).unwrap();
    player
        .does(Command::NewFile(FileKind::Memfd, 0, 1))
        .unwrap();
    player.does(Command::Resize(1, 2)).unwrap();
    let write = |page, value| Command::Write {
        file: 1,
        page,
        value,
    };
    player.does(write(0, 11)).unwrap();
    let preserve = Request::Preserve { file: 1, token: 1 };
    player.on(0, preserve).unwrap();
    assert_eq!(player.does(write(1, 12)), DONE, "a hole is filled");
    assert_eq!(player.does(write(2, 13)), Err(Errno::EPERM));
    assert_eq!(player.does(Command::Resize(1, 1)), Err(Errno::EPERM));
    player.world.kexec();
    player.takes(1, 0).unwrap();
    player.on(0, Request::Retrieve { token: 1, to: 1 }).unwrap();
    let contents = Told::Contents {
        size: 8192,
        words: vec![11, 12],
    };
    assert_eq!(player.does(Command::Read(1)), Ok(contents));
    let preserve = Request::Preserve { file: 1, token: 1 };
    player.creates(1, 2).unwrap();
    assert_eq!(player.on(2, preserve.clone()), Err(Errno::EBUSY));
    player.on(0, Request::Finish).unwrap();
    assert_eq!(player.on(2, preserve), DONE);
}

#[test]
fn a_session_that_cannot_be_finished_can_be_had_again() {
    let mut player = Player::new();
    player.creates(1, 0).unwrap();
    player.preserves(0, FileKind::RecorderB, 1).unwrap();
    player.world.kexec();
    player.takes(1, 0).unwrap();
    assert_eq!(player.takes(1, 1), Err(Errno::EINVAL));
    let fail = Command::FailNext(Callback::CanFinish);
    player.does(fail.clone()).unwrap();
    assert_eq!(player.on(0, Request::Finish), Err(Errno::EBUSY));
    player.does(fail).unwrap();
    player.does(Command::Close(0)).unwrap();
    assert_eq!(player.takes(1, 1), DONE);
    player.does(Command::Close(1)).unwrap();
    assert_eq!(player.takes(1, 1), Err(Errno::ENOENT));
}

#[test]
fn wrong_arguments_are_refused_in_order() {
    let mut player = Player::new();
    player.creates(1, 0).unwrap();
    let mut with = |request: Request, shape| player.does(Command::Session(0, request, shape));
    assert_eq!(with(Request::Finish, Shape::Unreadable), Err(Errno::EFAULT));
    assert_eq!(with(Request::Finish, Shape::Newer), Err(Errno::EINVAL));
    assert_eq!(with(Request::Name, Shape::Newer), Err(Errno::E2BIG));
    assert_eq!(with(Request::Name, Shape::Short), Err(Errno::EINVAL));
    assert_eq!(with(Request::Name, Shape::Reserved), Err(Errno::EINVAL));
    assert_eq!(with(Request::Name, Shape::ReadOnly), Err(Errno::EFAULT));
    assert!(with(Request::Name, Shape::Longer).is_ok());
}

/// A list that is taken in parts has all that was there from beginning to end, once.
#[test]
fn a_list_in_parts() {
    let mut player = Player::new();
    player.creates(1, 0).unwrap();
    for token in 0..5 {
        player.preserves(0, FileKind::Memfd, token).unwrap();
    }
    let mut part = |start, before: &[Request]| {
        for request in before {
            player.on(0, request.clone()).unwrap();
        }
        match player.on(0, Request::List { start, room: 2 }) {
            Ok(Told::Files { entries, total }) => {
                let tokens = entries.iter().map(|entry| entry.token);
                (tokens.collect::<Vec<_>>(), total)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(part(0, &[]), (vec![0, 1], 5));
    assert_eq!(part(2, &[Request::Unpreserve(0)]), (vec![2, 3], 5));
    let newer = Request::Preserve { file: 7, token: 9 };
    assert_eq!(
        part(4, &[Request::Unpreserve(4), newer]),
        (vec![], 4),
        "what is gone and what is new"
    );
    assert_eq!(part(0, &[]), (vec![1, 2], 4));
}

/// A random run, with a kexec now and then.
fn run(seed: u64, steps: usize, mut each: impl FnMut(&World, &Step, &Answer)) {
    let mut generator = Generator::new(seed);
    let mut world = World::new(layout(), 0);
    for number in 1..=steps {
        if number % 1500 == 0 {
            world.kexec();
        }
        let step = generator.step(&world);
        let answer = world.apply(&step);
        each(&world, &step, &answer);
    }
}

/// The generator is worth its name: every command is refused for every reason there is, and done.
#[test]
fn everything_comes_up() {
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    run(1, 150_000, |_, step, answer| {
        let how = match answer {
            Ok(_) => "ok".into(),
            Err(errno) => format!("{errno:?}"),
        };
        seen.entry(step.command.name()).or_default().insert(how);
    });
    let session = "E2BIG EBADF EFAULT EINVAL ENOTTY ok ";
    for (command, more) in [
        ("CREATE_SESSION", "E2BIG EEXIST EFAULT EINVAL ok"),
        ("RETRIEVE_SESSION", "E2BIG EFAULT EINVAL ENOENT ok"),
        ("GET_INFO", "E2BIG EFAULT EINVAL ok"),
        ("LIST_SESSIONS", "E2BIG EFAULT EINVAL ok"),
        ("PRESERVE_FD", &format!("{session} EBUSY EEXIST EIO ENOENT")),
        ("UNPRESERVE_FD", &format!("{session} EBUSY ENOENT")),
        ("RETRIEVE_FD", &format!("{session} EBUSY EIO ENOENT")),
        ("PREPARE", session),
        ("CANCEL", session),
        ("FINISH", &format!("{session} EBUSY")),
        ("SET_FLAGS", &format!("{session} EOPNOTSUPP")),
        ("GET_NAME", session),
        ("GET_STATE", session),
        ("LIST_FDS", session),
        ("unknown ioctl", "EBADF EINVAL ENOTTY"),
        ("open the device", "EBUSY"),
        ("read fdinfo", "EBADF EINVAL ok"),
        ("make a file", "ok"),
        ("write", "EBADF EINVAL EPERM ok"),
        ("read", "EBADF EINVAL ok"),
        ("truncate", "EBADF EINVAL EPERM ok"),
        ("close", "EBADF ok"),
        ("dup", "EBADF ok"),
        ("send a descriptor", "EBADF ok"),
        ("receive a descriptor", "EAGAIN ok"),
        ("kill", "ok"),
        ("make a callback fail", "ok"),
        ("refused kexec", "EIO ok"),
    ] {
        let wanted: BTreeSet<String> = more.split_whitespace().map(String::from).collect();
        assert_eq!(seen.remove(command), Some(wanted), "{command}");
    }
    assert!(seen.is_empty(), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same seed gives the same run; and any part of it is one that the model can take.
    #[test]
    fn runs_repeat_and_have_parts(seed: u64, keep: u64) {
        let (mut steps, mut answers) = (Vec::new(), Vec::new());
        run(seed, 3000, |_, step, answer| {
            steps.push(step.clone());
            answers.push(answer.clone());
        });
        let mut index = 0;
        run(seed, 3000, |_, step, answer| {
            assert_eq!((step, answer), (&steps[index], &answers[index]));
            index += 1;
        });
        let mut world = World::new(layout(), 0);
        for (number, step) in steps.iter().enumerate() {
            if keep >> (number % 64) & 1 == 0 {
                let _ = world.apply(step);
            }
        }
    }

    /// What a kernel begins with can be had by the steps that say so.
    #[test]
    fn sessions_can_be_made_again(seed: u64) {
        let mut world = World::new(layout(), 0);
        let mut generator = Generator::new(seed);
        for _ in 0..700 {
            let step = generator.step(&world);
            let _ = world.apply(&step);
        }
        world.kexec();
        let mut again = World::new(layout(), 0);
        for step in world.recreate() {
            prop_assert!(again.apply(&step).is_ok(), "{}", step);
        }
        let look = |world: &mut World| {
            let mut player = Player { world: world.clone(), process: 0 };
            let list = DeviceRequest::List { start: 0, room: 99 };
            let sessions = player.does(Command::Device(list, Shape::Good));
            let taken: Vec<_> = (0..7).map(|name| {
                let taken = player.takes(name, 0);
                taken.is_ok().then(|| player.tokens(0))
            }).collect();
            (sessions, taken)
        };
        prop_assert_eq!(look(&mut again), look(&mut world));
    }

    /// What is left is all that matters, and nothing else.
    #[test]
    fn shrinking_finds_what_matters(
        len in 1..400_usize,
        matters in prop::collection::btree_set(0..400_usize, 1..5),
    ) {
        let list: Vec<_> = (0..len).collect();
        let matters: Vec<_> = matters.into_iter().filter(|&number| number < len).collect();
        let fails = |list: &[usize]| {
            let mut wanted = matters.iter().peekable();
            let at = list.iter().position(|number| {
                if wanted.peek() == Some(&number) {
                    wanted.next();
                }
                wanted.peek().is_none()
            });
            at.map(|at| at + 1)
        };
        let mut shrinker = Shrinker::new(list);
        let mut tries = 0;
        while let Some(candidate) = shrinker.candidate() {
            shrinker.report(fails(&candidate));
            tries += 1;
            prop_assert!(tries < 400);
        }
        if matters.is_empty() {
            prop_assert!(shrinker.shortest().is_some_and(|list| list.len() <= 1));
        } else {
            prop_assert_eq!(shrinker.shortest(), Some(&matters[..]));
        }
    }
}
