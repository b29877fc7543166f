// SPDX-License-Identifier: GPL-2.0

//! Steps at random, most of them such that something happens.

use crate::command::{
    Callback, Command, DeviceRequest, FileKind, Name, Request, Shape, Slot, Step, Worker,
};
use crate::world::{Object, World};
use fastrand::Rng;

/// Short names and tokens: few, so that they are met again.
const NAMES: u8 = 6;
const TOKENS: u64 = 10;
/// Pages that a memfd has at most.
const PAGES: u64 = 3;

/// Descriptors that are in the socket at most.
const IN_SOCKET: usize = 6;

/// Makes steps. The same seed and the same worlds make the same steps.
#[derive(Clone, Debug)]
pub struct Generator(Rng);

/// A kind of object.
type Kind = fn(&World, Object) -> bool;

/// A kind of command.
struct Choice {
    /// How often it comes.
    weight: u32,
    /// What its process should have, if anything.
    wants: Option<Kind>,
    make: fn(&mut Generator, &World, Worker) -> Command,
}

const fn choice(
    weight: u32,
    wants: Option<Kind>,
    make: fn(&mut Generator, &World, Worker) -> Command,
) -> Choice {
    Choice {
        weight,
        wants,
        make,
    }
}

impl Choice {
    /// Whether a process has what it takes.
    fn suits(&self, world: &World, process: u8) -> bool {
        let mut objects = world.slots(process).iter().flatten();
        self.wants
            .is_none_or(|wants| objects.any(|object| wants(world, *object)))
    }
}

fn session(_: &World, object: Object) -> bool {
    !matches!(object, Object::File(_))
}

fn outgoing(_: &World, object: Object) -> bool {
    matches!(object, Object::Outgoing(_))
}

fn incoming(_: &World, object: Object) -> bool {
    matches!(object, Object::Incoming(_))
}

fn file(_: &World, object: Object) -> bool {
    matches!(object, Object::File(_))
}

const CHOICES: &[Choice] = &[
    choice(10, None, Generator::create),
    choice(12, None, Generator::retrieve_session),
    choice(10, None, Generator::list_sessions),
    choice(2, None, |generator, _, _| {
        Command::Device(DeviceRequest::Info, generator.shape())
    }),
    choice(60, Some(outgoing), Generator::preserve),
    choice(12, Some(outgoing), Generator::unpreserve),
    choice(30, Some(World::has_arrived_files), Generator::retrieve),
    choice(4, Some(outgoing), |generator, world, by| {
        generator.plain(world, by, Request::Prepare)
    }),
    choice(12, Some(outgoing), |generator, world, by| {
        generator.plain(world, by, Request::Cancel)
    }),
    choice(1, Some(incoming), |generator, world, by| {
        generator.plain(world, by, Request::Finish)
    }),
    choice(6, Some(session), |generator, world, by| {
        generator.plain(world, by, Request::Name)
    }),
    choice(12, Some(session), |generator, world, by| {
        generator.plain(world, by, Request::State)
    }),
    choice(10, Some(session), |generator, world, by| {
        let flags = *generator.pick(&[0, 0, 1, 1, 2, 3, 1 << 31]);
        generator.plain(world, by, Request::SetFlags(flags))
    }),
    choice(14, Some(session), Generator::list_files),
    choice(4, Some(session), |generator, world, by| {
        Command::FdInfo(generator.slot(world, by, session))
    }),
    choice(6, Some(session), Generator::strange),
    choice(28, None, Generator::new_file),
    choice(10, Some(World::is_memfd), |generator, world, by| {
        Command::Write {
            file: generator.slot(world, by, World::is_memfd),
            page: generator.0.u64(0..PAGES),
            value: generator.0.u64(..),
        }
    }),
    choice(14, Some(file), |generator, world, by| {
        Command::Read(generator.slot(world, by, file))
    }),
    choice(5, Some(World::is_memfd), |generator, world, by| {
        let pages = generator.0.u64(0..=PAGES);
        Command::Resize(generator.slot(world, by, World::is_memfd), pages)
    }),
    choice(20, Some(file), |generator, world, by| {
        Command::Close(generator.slot(world, by, file))
    }),
    choice(1, Some(session), |generator, world, by| {
        Command::Close(generator.slot(world, by, session))
    }),
    choice(4, None, |generator, world, by| {
        Command::Dup(generator.used(world, by), generator.free(world, by))
    }),
    choice(8, None, Generator::send),
    choice(10, None, |generator, world, by| {
        Command::Receive(generator.free(world, by))
    }),
];

/// What is everybody's business.
const SHARED: &[Choice] = &[
    choice(1, None, |generator, world, _| {
        Command::Kill(generator.0.u8(0..world.layout().processes))
    }),
    choice(10, None, |generator, _, _| {
        Command::FailNext(*generator.pick(&[
            Callback::Preserve,
            Callback::PreserveX,
            Callback::PreserveY,
            Callback::Retrieve,
            Callback::CanFinish,
        ]))
    }),
    choice(1, None, |_, _, _| Command::RefusedKexec),
    choice(1, None, |_, _, _| Command::OpenDevice),
];

/// What comes more often where others do something at the same time: to make a session and to close it is what all of
/// them have to do with.
const AMID_OTHERS: &[Choice] = &[choice(9, Some(outgoing), |generator, world, by| {
    Command::Close(generator.slot(world, by, outgoing))
})];

impl Generator {
    /// Begins with this seed.
    pub fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    /// The next step, for this world.
    pub fn step(&mut self, world: &World) -> Step {
        loop {
            let step = self.any_step(world);
            if world.layout().alone || !world.changes_preserved(&step) {
                return step;
            }
        }
    }

    fn any_step(&mut self, world: &World) -> Step {
        let layout = world.layout();
        let choice = self.choice(world);
        let by = Worker {
            process: self.process(world, choice),
            thread: self.0.u8(0..layout.threads),
        };
        Step {
            by,
            command: (choice.make)(self, world, by),
        }
    }

    /// What to do: as a rule something for which there is what it takes.
    fn choice(&mut self, world: &World) -> &'static Choice {
        let more = match world.layout().alone {
            true => SHARED,
            false => AMID_OTHERS,
        };
        let choices = || CHOICES.iter().chain(more);
        loop {
            let mut left = self.0.u32(0..choices().map(|choice| choice.weight).sum());
            let chosen = choices().find(|choice| {
                let found = left < choice.weight;
                left = left.wrapping_sub(choice.weight);
                found
            });
            let choice = chosen.expect("less than the sum of all");
            let mut processes = 0..world.layout().processes;
            if processes.any(|process| choice.suits(world, process)) || self.once_in(24) {
                return choice;
            }
        }
    }

    /// A process that has what it takes, as a rule and if there is one.
    fn process(&mut self, world: &World, choice: &Choice) -> u8 {
        let processes = 0..world.layout().processes;
        let suits = |process: &u8| choice.suits(world, *process);
        let fitting: Vec<u8> = processes.clone().filter(suits).collect();
        match fitting.is_empty() || self.once_in(24) {
            true => self.0.u8(processes),
            false => *self.pick(&fitting),
        }
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.0.usize(0..of.len())]
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u32) -> bool {
        self.0.u32(0..times) == 0
    }

    fn shape(&mut self) -> Shape {
        if !self.once_in(8) {
            return Shape::Good;
        }
        *self.pick(&[
            Shape::Longer,
            Shape::Newer,
            Shape::Short,
            Shape::Reserved,
            Shape::Unreadable,
            Shape::ReadOnly,
        ])
    }

    fn name(&mut self) -> Name {
        match self.0.u8(0..24) {
            0 => Name::Empty,
            1 => Name::Unterminated,
            2 => Name::Long,
            3 => Name::Dirty(self.0.u8(0..NAMES)),
            _ => Name::Plain(self.0.u8(0..NAMES)),
        }
    }

    /// A slot with something of this kind, as a rule and if there is one.
    fn slot(&mut self, world: &World, by: Worker, wants: Kind) -> Slot {
        self.slot_where(world, by, |object| {
            object.is_some_and(|object| wants(world, object))
        })
    }

    /// A slot with nothing in it, as a rule, or else with a file.
    fn free(&mut self, world: &World, by: Worker) -> Slot {
        if world.slots(by.process).iter().all(Option::is_some) {
            return self.slot(world, by, file);
        }
        self.slot_where(world, by, |object| object.is_none())
    }

    /// A slot with anything in it, as a rule.
    fn used(&mut self, world: &World, by: Worker) -> Slot {
        self.slot_where(world, by, |object| object.is_some())
    }

    fn slot_where(
        &mut self,
        world: &World,
        by: Worker,
        fits: impl Fn(Option<Object>) -> bool,
    ) -> Slot {
        let slots = world.slots(by.process).iter();
        let fitting = (0..).zip(slots).filter(|(_, object)| fits(**object));
        let fitting: Vec<Slot> = fitting.map(|(slot, _)| slot).collect();
        match fitting.is_empty() || self.once_in(24) {
            true => self.0.u8(0..world.layout().slots),
            false => *self.pick(&fitting),
        }
    }

    /// A token: one of the session's, as a rule, or else any.
    fn token(&mut self, world: &World, by: Worker, session: Slot) -> u64 {
        let object = world.slots(by.process)[usize::from(session)];
        let tokens = object.map_or_else(Vec::new, |object| world.tokens(object));
        match self.0.u8(0..8) {
            0 => self.new_token(),
            // What an ordered session takes.
            1..=3 if !tokens.is_empty() => tokens[tokens.len() - 1],
            _ if tokens.is_empty() => self.new_token(),
            _ => *self.pick(&tokens),
        }
    }

    fn new_token(&mut self) -> u64 {
        match self.0.u64(0..TOKENS + 1) {
            TOKENS => u64::MAX,
            token => token,
        }
    }

    fn create(&mut self, world: &World, by: Worker) -> Command {
        let request = DeviceRequest::Create(self.name(), self.free(world, by));
        Command::Device(request, self.shape())
    }

    fn retrieve_session(&mut self, world: &World, by: Worker) -> Command {
        let waiting: Vec<u8> = world
            .waiting()
            .filter_map(|name| name.get(1).copied())
            .collect();
        let name = if waiting.is_empty() || self.once_in(4) {
            self.name()
        } else {
            match *self.pick(&waiting) {
                digit @ b'0'..=b'9' => Name::Plain(digit - b'0'),
                _ => Name::Long,
            }
        };
        let request = DeviceRequest::Retrieve(name, self.free(world, by));
        Command::Device(request, self.shape())
    }

    fn window(&mut self, world: &World, by: Worker, of: Option<Object>) -> (u64, u64) {
        let going_on = world.next_of_lists(by, of);
        let start = match self.0.u8(0..8) {
            0 => self.0.u64(0..8),
            1..=4 if !going_on.is_empty() => *self.pick(&going_on),
            _ => 0,
        };
        (start, *self.pick(&[0, 1, 2, 3, 20, 20]))
    }

    fn list_sessions(&mut self, world: &World, by: Worker) -> Command {
        let (start, room) = match world.layout().alone {
            true => self.window(world, by, None),
            false => (0, 1000),
        };
        Command::Device(DeviceRequest::List { start, room }, self.shape())
    }

    fn list_files(&mut self, world: &World, by: Worker) -> Command {
        let session = self.slot(world, by, self::session);
        let of = world.slots(by.process)[usize::from(session)];
        let (start, room) = self.window(world, by, of);
        Command::Session(session, Request::List { start, room }, self.shape())
    }

    fn plain(&mut self, world: &World, by: Worker, request: Request) -> Command {
        let session = match request {
            Request::Prepare | Request::Cancel => self.slot(world, by, outgoing),
            Request::Finish => self.slot(world, by, incoming),
            _ => self.slot(world, by, session),
        };
        Command::Session(session, request, self.shape())
    }

    fn preserve(&mut self, world: &World, by: Worker) -> Command {
        let request = Request::Preserve {
            file: match self.once_in(4) {
                true => self.slot(world, by, file),
                false => self.slot(world, by, World::is_free_file),
            },
            token: self.new_token(),
        };
        Command::Session(self.slot(world, by, outgoing), request, self.shape())
    }

    fn unpreserve(&mut self, world: &World, by: Worker) -> Command {
        let session = self.slot(world, by, outgoing);
        let request = Request::Unpreserve(self.token(world, by, session));
        Command::Session(session, request, self.shape())
    }

    fn retrieve(&mut self, world: &World, by: Worker) -> Command {
        let session = self.slot(world, by, incoming);
        let request = Request::Retrieve {
            token: self.token(world, by, session),
            to: self.free(world, by),
        };
        Command::Session(session, request, self.shape())
    }

    /// A number of no command: another direction or size, another object's, or nobody's.
    fn strange(&mut self, world: &World, by: Worker) -> Command {
        const TYPE: u32 = 0xba00;
        let on = (!self.once_in(3)).then(|| self.slot(world, by, session));
        let own: &[u32] = match on {
            None => &[0x00, 0x01, 0xa0, 0xa1],
            Some(_) => &[0x40, 0x41, 0x42, 0x43, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5],
        };
        let number = self.0.u32(0..=0xff);
        let other_type = own.contains(&number) || self.once_in(4);
        let direction = if other_type { 0xc008_0000 } else { 0 };
        Command::Strange(on, TYPE | number | direction)
    }

    fn new_file(&mut self, world: &World, by: Worker) -> Command {
        let kind = *self.pick(&[
            FileKind::Memfd,
            FileKind::Memfd,
            FileKind::Memfd,
            FileKind::Memfd,
            FileKind::RecorderA,
            FileKind::RecorderA,
            FileKind::RecorderB,
            FileKind::RecorderB,
            FileKind::Null,
            FileKind::Event,
            FileKind::Named,
        ]);
        Command::NewFile(kind, self.0.u32(..), self.free(world, by))
    }

    /// Puts a descriptor into the socket, where there are never many.
    fn send(&mut self, world: &World, by: Worker) -> Command {
        match world.in_socket() < IN_SOCKET {
            true => Command::Send(self.used(world, by)),
            false => Command::Receive(self.free(world, by)),
        }
    }
}
