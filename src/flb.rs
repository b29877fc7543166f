// SPDX-License-Identifier: GPL-2.0

//! File-Lifecycle-Bound objects: state that all files of a type share.
//!
//! An FLB is made with the first preserved file of any handler that it is linked to, and unmade
//! with the last; it is handed over by the kexec; in the new kernel it is there as soon as somebody
//! asks, be it a driver before user space runs; and it ends with the last of the files.

mod class;
pub(crate) mod incoming;
pub(crate) mod outgoing;
mod table;

pub use incoming::IncomingRef;
pub use outgoing::OutgoingRef;
pub(crate) use table::{init, IncomingTable, Table};

use crate::{
    handler,
    handover::luo::{Compatible, FlbSer},
    module_ref::{ModuleRef, Owner},
};
use class::ClassedMutex;
use incoming::Incoming;
use kernel::{prelude::*, sync::Arc};
use outgoing::Outgoing;

/// A kind of state that files share.
///
/// Callbacks may sleep. They are called with a lock of the FLB held and must not ask for the same
/// FLB. They may ask for another one, in one order for all.
pub trait Flb: Send + Sync + 'static {
    /// The state in the old kernel. To drop it is to unpreserve it.
    type Outgoing: Send + Sync + Unpin;
    /// The state in the new kernel.
    type Incoming: Send + Sync + Unpin;

    /// The compatible string by which the next kernel finds the FLB. It stands for the layout of
    /// its data, too.
    fn compatible(&self) -> Compatible;

    /// Makes the state, with the first file.
    fn preserve(&self) -> Result<Self::Outgoing>;

    /// What the next kernel finds the data by. Called in the kexec: light, and cannot fail.
    fn data(&self, state: &Self::Outgoing) -> u64;

    /// Makes the state of `data`, which the previous kernel's [`Self::data`] returned. It is input:
    /// it may be anything. Called once, and its error is remembered, as long as luo.ko is loaded.
    fn retrieve(&self, data: u64) -> Result<Self::Incoming>;

    /// Ends the state: the last file is finished.
    fn finish(&self, state: Self::Incoming);
}

/// A registered FLB.
#[pin_data]
pub(crate) struct Object<T: Flb> {
    flb: T,
    owner: Owner,
    #[pin]
    outgoing: ClassedMutex<Outgoing<T>>,
    #[pin]
    incoming: ClassedMutex<Incoming<T>>,
}

/// What a preserved or retrieved file does with an FLB, of whatever kind.
pub(crate) trait AnyFlb: Send + Sync {
    /// The compatible string.
    fn compatible(&self) -> Compatible;
    /// The module that it lives in.
    fn owner(&self) -> Owner;
    /// A file that depends on it is preserved.
    fn file_preserved(&self) -> Result;
    /// A file that depends on it is unpreserved.
    fn file_unpreserved(&self);
    /// A file that depends on it is finished.
    fn file_finished(&self);
    /// Describes it to the next kernel, if there is something to describe.
    fn serialize(&self) -> Option<FlbSer>;
    /// Number of files that depend on it: to be handed over, and handed over.
    fn counts(&self) -> (u64, u64);
}

/// What leads to an FLB: itself, or whatever keeps it registered.
pub(crate) trait AsFlb: Send + Sync {
    /// The FLB, of whatever kind.
    fn as_flb(&self) -> &(dyn AnyFlb + 'static);
}

impl<T: Flb> AsFlb for Object<T> {
    fn as_flb(&self) -> &(dyn AnyFlb + 'static) {
        self
    }
}

/// An FLB whose module stays loaded, so that it can be called with nothing locked.
// The fields are dropped in this order: the object before the module that its code is in.
pub(crate) struct Pinned {
    flb: Arc<dyn AsFlb>,
    _module: ModuleRef,
}

impl Pinned {
    /// Pins an FLB; `None` if its module is being loaded or unloaded. The caller sees to it that the FLB is
    /// not unregistered meanwhile.
    pub(crate) fn new(flb: &Arc<dyn AsFlb>) -> Option<Self> {
        Some(Self {
            _module: ModuleRef::get_live(flb.as_flb().owner())?,
            flb: flb.clone(),
        })
    }
}

impl core::ops::Deref for Pinned {
    type Target = dyn AnyFlb;

    fn deref(&self) -> &Self::Target {
        self.flb.as_flb()
    }
}

/// An FLB that is in the table of all FLBs until this is dropped: so whoever registered it has this,
/// handlers that it is linked to, and files that depend on it.
pub(crate) struct Listed<T: Flb>(Arc<Object<T>>);

impl<T: Flb> Listed<T> {
    /// Puts an FLB into the table: `EEXIST` if its compatible string is taken, `ENOSPC` if there are
    /// too many.
    pub(crate) fn new(flb: T, owner: Owner) -> Result<Self> {
        let object = Arc::pin_init(
            try_pin_init!(Object {
                flb,
                owner,
                outgoing <- ClassedMutex::new(Outgoing::new(), c"luo: outgoing FLB"),
                incoming <- ClassedMutex::new(Incoming::new(), c"luo: incoming FLB"),
            }),
            GFP_KERNEL,
        )?;
        Table::add(object.clone())?;
        Ok(Self(object))
    }

    /// The object itself.
    pub(crate) fn object(&self) -> &Arc<Object<T>> {
        &self.0
    }
}

impl<T: Flb> AsFlb for Listed<T> {
    fn as_flb(&self) -> &(dyn AnyFlb + 'static) {
        &*self.0
    }
}

impl<T: Flb> Drop for Listed<T> {
    fn drop(&mut self) {
        Table::remove(&self.0.compatible());
    }
}

/// An FLB that is registered until this is dropped. Files that depend on it by then do so until they
/// are unpreserved or finished: as long it is handed over as before, and its compatible string is taken.
pub struct Registration<T: Flb>(Arc<Listed<T>>);

impl<T: Flb> Registration<T> {
    /// Registers an FLB that lives in `module`, for the files of `handlers`.
    ///
    /// Fails with `EEXIST` if its compatible string is taken, with `ENOSPC` if there are too many.
    pub fn new(
        flb: T,
        module: &'static ThisModule,
        handlers: &[&handler::Registration],
    ) -> Result<Self> {
        let registration = Self(Arc::new(Listed::new(flb, module.into())?, GFP_KERNEL)?);
        for handler in handlers {
            handler.link(registration.0.clone())?;
        }
        Ok(registration)
    }

    /// The state of the old kernel, for as long as the reference lives.
    ///
    /// Fails with `ENOENT` while no file that depends on it is preserved.
    pub fn outgoing(&self) -> Result<OutgoingRef<T>> {
        outgoing::get(self.0.object())
    }

    /// The state that the previous kernel handed over, for as long as the reference lives. Makes it
    /// of the data if nobody has yet.
    ///
    /// Fails with `ENODATA` if nothing was handed over or it is finished, with `ENOENT` if this was
    /// not, and with the error of [`Flb::retrieve`], which is final.
    pub fn incoming(&self) -> Result<IncomingRef<T>> {
        incoming::get(self.0.object())
    }
}

impl<T: Flb> Drop for Registration<T> {
    fn drop(&mut self) {
        handler::unlink_all(&self.0.object().compatible());
    }
}

impl<T: Flb> AnyFlb for Object<T> {
    fn compatible(&self) -> Compatible {
        self.flb.compatible()
    }

    fn owner(&self) -> Owner {
        self.owner
    }

    fn file_preserved(&self) -> Result {
        outgoing::add_file(self)
    }

    fn file_unpreserved(&self) {
        outgoing::remove_file(self);
    }

    fn file_finished(&self) {
        incoming::remove_file(self);
    }

    fn serialize(&self) -> Option<FlbSer> {
        outgoing::serialize(self)
    }

    fn counts(&self) -> (u64, u64) {
        (outgoing::count(self), incoming::count(self))
    }
}
