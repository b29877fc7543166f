// SPDX-License-Identifier: GPL-2.0

//! Layout of "luo-v5": the root, sessions, files and FLBs.
//!
//! Source: `include/linux/kho/abi/luo.h` of Linux 7.3. All fields are naturally aligned, so that
//! `repr(C)` is the packed layout of that header.

use super::{block::Entry, Malformed, Page, PAGE_SIZE};
use core::{ffi::CStr, fmt, mem::size_of};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the KHO subtree that holds [`LuoSer`].
pub(crate) const KHO_ENTRY: &CStr = c"LUO";

/// Compatible string of these layouts.
pub(crate) const COMPATIBLE: [u8; 8] = *b"luo-v5\0\0";

/// The root of all that is handed over.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct LuoSer {
    /// [`COMPATIBLE`].
    pub(crate) compatible: [u8; 8],
    /// How many live updates there have been, with the one that hands this over.
    pub(crate) liveupdate_num: u64,
    /// Physical address of the first block of [`SessionSer`], or 0.
    pub(crate) sessions_pa: u64,
    /// Physical address of [`FlbHeaderSer`], or 0.
    pub(crate) flbs_pa: u64,
}

impl LuoSer {
    /// Checks that the layout is ours to read.
    pub(crate) fn validate(&self) -> Result<(), Malformed> {
        if self.compatible != COMPATIBLE {
            return Err(Malformed::Incompatible);
        }
        Ok(())
    }
}

/// A session.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct SessionSer {
    /// The name, terminated by a zero.
    pub(crate) name: [u8; SessionName::SIZE],
    /// Physical address of the first block of [`FileSer`], or 0 if there are no files.
    pub(crate) files_pa: u64,
    /// Number of files.
    pub(crate) nr_files: u64,
}

impl SessionSer {
    /// Marks an entry whose session is gone.
    pub(crate) const GONE: Self = Self {
        name: [0; SessionName::SIZE],
        files_pa: 0,
        nr_files: 0,
    };

    /// The session's name; `None` if the session is [gone](Self::GONE).
    pub(crate) fn validate(&self) -> Result<Option<SessionName>, Malformed> {
        if self.name[0] == 0 && self.files_pa == 0 && self.nr_files == 0 {
            return Ok(None);
        }
        if (self.files_pa == 0) != (self.nr_files == 0) {
            return Err(Malformed::Count(self.nr_files));
        }
        SessionName::new(&self.name)
            .map(Some)
            .ok_or(Malformed::String)
    }
}

impl Entry for SessionSer {}

/// A preserved file.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct FileSer {
    /// Compatible string of the handler.
    pub(crate) compatible: Compatible,
    /// What the handler finds its data by: usually a physical address.
    pub(crate) data: u64,
    /// The user's name for the file.
    pub(crate) token: u64,
}

impl Entry for FileSer {}

/// Precedes the array of [`FlbSer`].
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct FlbHeaderSer {
    /// Number of pages of header and array.
    pub(crate) nr_pages: u64,
    /// Number of entries of the array.
    pub(crate) count: u64,
}

/// The most FLBs that there can be: so many fit into the page that hands them over.
pub(crate) const MAX_FLBS: usize = (PAGE_SIZE - size_of::<FlbHeaderSer>()) / size_of::<FlbSer>();

impl FlbHeaderSer {
    /// The entries of the array in `page`, which starts with its header.
    pub(crate) fn entries(page: &Page) -> Result<&[FlbSer], Malformed> {
        let (header, rest) =
            Self::ref_from_prefix(&page.0).map_err(|_| Malformed::Field("FLB header"))?;
        if header.nr_pages != 1 {
            return Err(Malformed::Count(header.nr_pages));
        }
        let too_many = Malformed::Count(header.count);
        let count = usize::try_from(header.count)
            .ok()
            .filter(|&count| count <= MAX_FLBS)
            .ok_or(too_many)?;
        let (entries, _) =
            <[FlbSer]>::ref_from_prefix_with_elems(rest, count).map_err(|_| too_many)?;
        Ok(entries)
    }
}

/// A File-Lifecycle-Bound object.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct FlbSer {
    /// Compatible string of the FLB.
    pub(crate) compatible: Compatible,
    /// What the FLB finds its data by.
    pub(crate) data: u64,
    /// Number of preserved files that depend on it.
    pub(crate) count: u64,
}

const _: () = assert!(size_of::<LuoSer>() == 32);
const _: () = assert!(size_of::<SessionSer>() == 80);
const _: () = assert!(size_of::<FileSer>() == 64);
const _: () = assert!(size_of::<FlbHeaderSer>() == 16);
const _: () = assert!(size_of::<FlbSer>() == 64);

/// Finds the string in a field: the bytes before the first zero, if there are any and it ends.
fn terminated(field: &[u8]) -> Option<&[u8]> {
    let len = field.iter().position(|&byte| byte == 0)?;
    if len == 0 {
        return None;
    }
    field.get(..len)
}

/// The name of a session: 1 to 63 bytes of any value but zero.
///
/// # Invariants
///
/// The bytes up to the first zero are the name, of 1 to 63 bytes; those after it are all zero, so
/// that equal names are equal arrays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionName([u8; Self::SIZE]);

impl SessionName {
    /// Size of a name with its terminating zero (`LIVEUPDATE_SESSION_NAME_LENGTH`).
    pub(crate) const SIZE: usize = 64;

    /// Takes the name from a field; `None` if it is empty or does not end within it.
    pub(crate) fn new(field: &[u8; Self::SIZE]) -> Option<Self> {
        let name = terminated(field)?;
        let mut array = [0; Self::SIZE];
        array.get_mut(..name.len())?.copy_from_slice(name);
        // INVARIANT: `terminated` found 1 to 63 bytes; the rest was zeroed.
        Some(Self(array))
    }

    /// The name without its terminating zero.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        terminated(&self.0).unwrap_or_default()
    }

    /// The name as it stands in a structure.
    pub(crate) fn as_array(&self) -> &[u8; Self::SIZE] {
        &self.0
    }

    /// Size of [`Self::word`]: no byte becomes more than four, and a zero ends it.
    pub(crate) const WORD_SIZE: usize = 4 * (Self::SIZE - 1) + 1;

    /// The name as a word of one line: escaped as in the log, and each space as `\x20`.
    pub(crate) fn word(&self) -> [u8; Self::WORD_SIZE] {
        let escaped = self.as_bytes().escape_ascii().flat_map(|byte| match byte {
            b' ' => *b"\\x20",
            _ => [byte, 0, 0, 0],
        });
        let mut word = [0; Self::WORD_SIZE];
        for (to, byte) in word.iter_mut().zip(escaped.filter(|&byte| byte != 0)) {
            *to = byte;
        }
        word
    }
}

impl fmt::Debug for SessionName {
    /// Shows the name so that no byte of it can do harm to a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.as_bytes().escape_ascii())
    }
}

/// A compatible string: names a file type or an FLB, and the layout of its data.
///
/// As it stands in a structure; an incoming one may be anything.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Compatible([u8; Self::SIZE]);

impl Compatible {
    /// Size with the terminating zero (`LIVEUPDATE_HNDL_COMPAT_LENGTH`).
    pub const SIZE: usize = 48;

    /// Takes the string from a field; `None` if it is empty or does not end within it.
    pub(crate) fn new(field: &[u8; Self::SIZE]) -> Option<Self> {
        let text = terminated(field)?;
        let mut array = [0; Self::SIZE];
        array.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self(array))
    }

    /// The same string, equal to all others of the same text: what follows the terminating zero
    /// does not count. One that does not end is left as it is, and equal to none that does.
    pub(crate) fn normalized(&self) -> Self {
        Self::new(&self.0).unwrap_or(*self)
    }

    /// Whether it ends, and is not empty.
    pub(crate) fn is_valid(&self) -> bool {
        Self::new(&self.0).is_some()
    }

    /// The compatible string `text`; does not compile in a `const` if it is empty or too long.
    pub const fn from_str(text: &str) -> Self {
        let text = text.as_bytes();
        assert!(!text.is_empty() && text.len() < Self::SIZE);
        let mut array = [0; Self::SIZE];
        let mut i = 0;
        while i < text.len() {
            array[i] = text[i];
            i += 1;
        }
        Self(array)
    }

    /// The bytes of the structure.
    pub(crate) fn as_array(&self) -> &[u8; Self::SIZE] {
        &self.0
    }

    /// The same for somebody who counts on a zero: one that does not end lacks its last byte.
    pub(crate) fn with_zero(&self) -> [u8; Self::SIZE] {
        let mut array = self.0;
        if let Some(last) = array.last_mut() {
            *last = 0;
        }
        array
    }
}

impl fmt::Debug for Compatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.split(|&byte| byte == 0).next().unwrap_or_default();
        write!(f, "[{}]", text.escape_ascii())
    }
}
