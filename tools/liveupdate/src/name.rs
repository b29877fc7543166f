//! Names of sessions.

use std::fmt;
use std::str::FromStr;

use crate::raw::NAME_LENGTH;

/// The name of a session: 1 to [`SessionName::MAX_LEN`] bytes, none of them NUL.
///
/// The kernel compares names byte by byte and asks for no encoding, so neither does this type.
/// Whatever takes a name also takes a `&str`, a `String` or bytes, and checks it.
///
/// ```
/// use liveupdate::{NameError, SessionName};
///
/// let name: SessionName = "guest-7".parse()?;
/// assert_eq!(name.as_bytes(), b"guest-7");
/// assert_eq!(name.to_string(), "guest-7");
/// assert_eq!(SessionName::new([b'x'; 64]), Err(NameError::TooLong(64)));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName(Vec<u8>);

/// Why something is not the name of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It has no bytes.
    #[error("a session name cannot be empty")]
    Empty,
    /// It has this many bytes, more than [`SessionName::MAX_LEN`].
    #[error("a session name of {0} bytes is too long, {max} are possible", max = SessionName::MAX_LEN)]
    TooLong(usize),
    /// It contains a NUL byte, which would end it.
    #[error("a session name cannot contain a NUL byte")]
    Nul,
}

impl SessionName {
    /// Length of the longest possible name, in bytes.
    pub const MAX_LEN: usize = NAME_LENGTH - 1;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`NameError`] says what is wrong with it.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > Self::MAX_LEN {
            return Err(NameError::TooLong(name.len()));
        }
        if name.contains(&0) {
            return Err(NameError::Nul);
        }
        Ok(Self(name.to_vec()))
    }

    /// Takes a name from the kernel: what precedes the first NUL.
    pub(crate) fn from_raw(raw: &[u8; NAME_LENGTH]) -> Self {
        Self(until_nul(raw).to_vec())
    }

    /// The name as the kernel wants it.
    pub(crate) fn to_raw(&self) -> [u8; NAME_LENGTH] {
        let mut raw = [0; NAME_LENGTH];
        raw[..self.0.len()].copy_from_slice(&self.0);
        raw
    }

    /// The name, without a terminating NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name, if it is UTF-8.
    #[must_use]
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

/// What precedes the first NUL, or all of it.
pub(crate) fn until_nul(raw: &[u8]) -> &[u8] {
    raw.split(|&byte| byte == 0).next().unwrap_or(raw)
}

impl AsRef<[u8]> for SessionName {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for SessionName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

/// Bytes that are not printable ASCII or part of a UTF-8 character are shown as `\xNN`.
impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_1_to_63() {
        assert_eq!(SessionName::new(""), Err(NameError::Empty));
        assert!(SessionName::new("a").is_ok());
        assert!(SessionName::new([b'n'; 63]).is_ok());
        assert_eq!(SessionName::new([b'n'; 64]), Err(NameError::TooLong(64)));
        assert_eq!(SessionName::new("a\0b"), Err(NameError::Nul));
        assert_eq!(
            NameError::TooLong(70).to_string(),
            "a session name of 70 bytes is too long, 63 are possible"
        );
    }

    #[test]
    fn raw_form_is_terminated_and_read_back() {
        let longest = SessionName::new([b'n'; 63]).unwrap();
        assert_eq!(longest.to_raw()[63], 0);
        assert_eq!(SessionName::from_raw(&longest.to_raw()), longest);

        let mut garbage_behind = SessionName::new("vm").unwrap().to_raw();
        garbage_behind[5] = b'!';
        assert_eq!(SessionName::from_raw(&garbage_behind).as_bytes(), b"vm");
    }

    #[test]
    fn any_bytes_can_be_shown() {
        let name = SessionName::new(b"a\n\xffb\xc3\xa4").unwrap();
        assert_eq!(name.to_string(), "a\\n\\xffbä");
        assert_eq!(name.to_str(), None);
        assert_eq!(format!("{:?}", SessionName::new("vm").unwrap()), "\"vm\"");
    }
}
