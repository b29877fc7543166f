// SPDX-License-Identifier: GPL-2.0

//! Tokens, and what stands beside them on the command line.

use crate::failure::{Failure, Result, Status};
use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;

/// A token as it is typed and shown: `7`, `0x7`.
pub fn parse(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("the token '{text}' is not a number from 0 to {}", u64::MAX))
}

/// `TOKEN=PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPath {
    /// The token.
    pub token: u64,
    /// The path, never empty.
    pub path: PathBuf,
}

impl FromStr for TokenPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (token, path) = text
            .split_once('=')
            .ok_or_else(|| format!("'{text}' has no '=': TOKEN=PATH is wanted"))?;
        if path.is_empty() {
            return Err(format!("'{text}' has no path behind the '='"));
        }
        Ok(Self {
            token: parse(token)?,
            path: path.into(),
        })
    }
}

/// `TOKEN` or `TOKEN=PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaybePath {
    /// The token.
    pub token: u64,
    /// The path, if there is one.
    pub path: Option<PathBuf>,
}

impl FromStr for MaybePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('=') {
            let TokenPath { token, path } = text.parse()?;
            let path = Some(path);
            return Ok(Self { token, path });
        }
        let token = parse(text)?;
        Ok(Self { token, path: None })
    }
}

/// Refuses a token that is there twice.
pub fn all_different(tokens: impl IntoIterator<Item = u64>) -> Result<()> {
    let mut seen = HashSet::new();
    match tokens.into_iter().find(|token| !seen.insert(*token)) {
        None => Ok(()),
        Some(token) => Err(Failure::new(
            Status::Usage,
            format_args!("the token {token:#x} is there twice"),
            "give each file a token of its own",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_decimal_or_hexadecimal() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("0x1f"), Ok(31));
        assert_eq!(parse("18446744073709551615"), Ok(u64::MAX));
        for wrong in ["", "-1", "0x", "1f", "18446744073709551616", "one"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_may_contain_anything() {
        let parsed: TokenPath = "0x2=/proc/7/fd/3=x".parse().unwrap();
        assert_eq!((parsed.token, parsed.path), (2, "/proc/7/fd/3=x".into()));
        for wrong in ["", "1", "1=", "=x", "x=1"] {
            assert!(wrong.parse::<TokenPath>().is_err(), "{wrong}");
        }
        let bare: MaybePath = "5".parse().unwrap();
        assert_eq!((bare.token, bare.path), (5, None));
        assert!("5=".parse::<MaybePath>().is_err());
    }

    #[test]
    fn the_same_token_in_two_spellings_is_there_twice() {
        assert!(all_different([1, 2, 3]).is_ok());
        let failure = all_different([16, 1, 0x10]).unwrap_err();
        assert_eq!(failure.status, Status::Usage);
        assert_eq!(failure.cause, "the token 0x10 is there twice");
    }
}
