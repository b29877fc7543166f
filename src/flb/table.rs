// SPDX-License-Identifier: GPL-2.0

//! All FLBs: those that are registered, and those that the previous kernel handed over.

use super::{AsFlb, Pinned};
use crate::{
    handover::{
        luo::{Compatible, FlbHeaderSer, FlbSer, LuoSer, MAX_FLBS},
        Malformed, Page, Source,
    },
    kho::{self, IncomingAccount, PreservedPage, Stop},
    log::err_limited,
    static_list::release_if_empty,
};
use core::mem::{offset_of, size_of};
use kernel::{
    prelude::*,
    sync::{global_lock, Arc},
};

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static REGISTERED: Mutex<KVec<Arc<dyn AsFlb>>> = KVec::new();
}

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static INCOMING: Mutex<Option<IncomingTable>> = None;
}

/// Makes the registry ready for use.
///
/// # Safety
///
/// To be called once, before anything else of this room.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe {
        REGISTERED.init();
        INCOMING.init();
    }
}

/// The registry. No FLB is called with the lock of what is registered held; the lock of what was handed
/// over is taken after that of an FLB's state.
pub(crate) struct Table;

impl Table {
    /// Registers an FLB.
    pub(super) fn add(flb: Arc<dyn AsFlb>) -> Result {
        let compatible = flb.as_flb().compatible();
        let mut registered = REGISTERED.lock();
        if registered.len() >= MAX_FLBS {
            return Err(ENOSPC);
        }
        if registered
            .iter()
            .any(|other| other.as_flb().compatible() == compatible)
        {
            return Err(EEXIST);
        }
        registered.push(flb, GFP_KERNEL)?;
        Ok(())
    }

    /// Unregisters the FLB called `compatible`.
    pub(super) fn remove(compatible: &Compatible) {
        let mut registered = REGISTERED.lock();
        registered.retain(|other| other.as_flb().compatible() != *compatible);
        release_if_empty(&mut registered);
    }

    /// Says what the previous kernel handed over, or takes it back.
    pub(crate) fn set_incoming(table: Option<IncomingTable>) {
        *INCOMING.lock() = table;
    }

    /// What the previous kernel handed over for the FLB called `compatible`: `ENODATA` if it handed
    /// over none at all or this one is finished, `ENOENT` if not this one, `EBUSY` if it was made and
    /// is not finished; or the error with which it could not be made.
    pub(super) fn incoming_data(compatible: &Compatible) -> Result<u64> {
        let incoming = INCOMING.lock();
        let table = incoming.as_ref().ok_or(ENODATA)?;
        let i = table.find(compatible).ok_or(ENOENT)?;
        let Entry { ser, fate } = &table.entries[i];
        match *fate {
            Fate::Pending => Ok(ser.data),
            Fate::Made => Err(EBUSY),
            Fate::Finished => Err(ENODATA),
            Fate::Failed(err) => Err(err),
        }
    }

    /// Notes what became of the FLB called `compatible`, for whoever asks for it from now on.
    pub(super) fn set_fate(compatible: &Compatible, fate: Fate) {
        if let Some(table) = INCOMING.lock().as_mut() {
            if let Some(i) = table.find(compatible) {
                table.entries[i].fate = fate;
            }
        }
    }

    /// How many files that depend on it are not finished.
    pub(super) fn incoming_files(compatible: &Compatible) -> u64 {
        INCOMING.lock().as_ref().map_or(0, |table| {
            table
                .find(compatible)
                .map_or(0, |i| table.entries[i].ser.count)
        })
    }

    /// Notes that a file that depends on it is finished, and tells how many are not. `None` if it was
    /// not handed over.
    pub(super) fn finish_file(compatible: &Compatible) -> Option<u64> {
        INCOMING.lock().as_mut()?.finish_file(compatible)
    }

    /// Writes all FLBs that there are files for to `page`, for the next kernel.
    pub(crate) fn serialize(page: &mut PreservedPage) -> Result {
        let mut count = 0;
        for ser in Self::pinned()?.iter().filter_map(|flb| flb.serialize()) {
            let start = size_of::<FlbHeaderSer>() + count * size_of::<FlbSer>();
            let to = page.0.get_mut(start..).ok_or(ENOSPC)?;
            ser.write_to_prefix(to).map_err(|_| ENOSPC)?;
            count += 1;
        }
        let header = FlbHeaderSer {
            nr_pages: 1,
            count: count as u64,
        };
        header.write_to_prefix(&mut page.0).map_err(|_| EINVAL)
    }

    /// All registered FLBs, but for those whose modules are being loaded or unloaded: no file depends on
    /// them.
    pub(crate) fn pinned() -> Result<KVec<Pinned>> {
        let registered = REGISTERED.lock();
        let mut all = KVec::with_capacity(registered.len(), GFP_KERNEL)?;
        for flb in registered.iter().filter_map(Pinned::new) {
            all.push(flb, GFP_KERNEL)?;
        }
        Ok(all)
    }
}

/// What became of an FLB that was handed over. Its object may be made, and its module loaded, more than
/// once, but its data is used once.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// It was not made.
    Pending,
    /// It was made and is not finished. Who made it and went without doing so leaves it that way.
    Made,
    /// It is finished: what its data led to is somebody else's by now.
    Finished,
    /// It could not be made.
    Failed(Error),
}

/// What the previous kernel handed over, a copy of it.
pub(crate) struct IncomingTable {
    /// Where the root is, which says where this is.
    root_pa: u64,
    pa: u64,
    entries: KVec<Entry>,
}

/// An FLB that was handed over.
struct Entry {
    ser: FlbSer,
    fate: Fate,
}

impl IncomingTable {
    /// Reads the table at `pa`, of any value but 0, that the root at `root_pa` leads to.
    pub(crate) fn read(root_pa: u64, pa: u64, scratch: &mut Page) -> Result<Self, Stop> {
        if !IncomingAccount.read(pa, scratch) {
            return Err(Malformed::NotPreserved(pa).into());
        }
        let mut entries = KVec::new();
        for entry in FlbHeaderSer::entries(scratch)? {
            let mut ser = entry.clone();
            ser.compatible = ser.compatible.normalized();
            let before = |before: &Entry| before.ser.compatible == ser.compatible;
            if !ser.compatible.is_valid() || entries.iter().any(before) {
                // Nobody finds it. It keeps its place, by which the others are written to.
                err_limited!(
                    "FLB {:?} of the previous kernel is refused: it has no name of its own; its memory is kept until the next kexec\n",
                    ser.compatible
                );
            }
            // Finished already, under a module that was here before.
            let fate = if ser.count == 0 {
                Fate::Finished
            } else {
                Fate::Pending
            };
            entries.push(Entry { ser, fate }, GFP_KERNEL)?;
        }
        let table = Self {
            root_pa,
            pa,
            entries,
        };
        kho::set_aside(pa);
        table.forget_if_done();
        Ok(table)
    }

    /// Frees the previous kernel's account if no file depends on any of its FLBs.
    fn forget_if_done(&self) {
        if self.entries.iter().all(|entry| entry.ser.count == 0) {
            kho::write_account(self.root_pa, offset_of!(LuoSer, flbs_pa), 0u64.as_bytes());
            kho::free_account(self.pa);
        }
    }

    /// The number of the entry called `compatible`.
    fn find(&self, compatible: &Compatible) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.ser.compatible == *compatible)
    }

    /// One file less, here and in the previous kernel's account, so that a newer module that takes
    /// over finds it right. Frees that account with the last one. Tells how many are left.
    fn finish_file(&mut self, compatible: &Compatible) -> Option<u64> {
        let i = self.find(compatible)?;
        let ser = &mut self.entries[i].ser;
        let Some(left) = ser.count.checked_sub(1) else {
            err_limited!(
                "FLB {:?}: more files depend on it than the previous kernel said\n",
                compatible
            );
            return None;
        };
        ser.count = left;
        let start = size_of::<FlbHeaderSer>() + i * size_of::<FlbSer>();
        kho::write_account(self.pa, start + offset_of!(FlbSer, count), left.as_bytes());
        self.forget_if_done();
        Some(left)
    }
}
