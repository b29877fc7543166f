// SPDX-License-Identifier: GPL-2.0

//! Delta debugging: from a sequence that fails to a short one that still does.

use serde::{Deserialize, Serialize};

/// A sequence that is known or believed to fail, and what is to be tried next.
///
/// It is data, so that it can be written down between two tries.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Shrinker<T> {
    list: Vec<T>,
    /// Whether the list was seen to fail.
    confirmed: bool,
    /// So many elements are left out at a time; 0 when there is nothing more to try.
    chunk: usize,
    /// The first element that is left out.
    at: usize,
    /// Whether anything could be left out since the list's start.
    progress: bool,
}

impl<T: Clone> Shrinker<T> {
    /// Begins with a sequence, which is tried as a whole first.
    pub fn new(list: Vec<T>) -> Self {
        Self {
            chunk: list.len().max(1),
            list,
            confirmed: false,
            at: 0,
            progress: false,
        }
    }

    /// The same from the start, where nothing was seen to fail: something else is different now.
    pub fn again(&self) -> Self {
        Self::new(self.list.clone())
    }

    /// The sequence to try next; `None` when there is nothing more to try.
    pub fn candidate(&self) -> Option<Vec<T>> {
        if !self.confirmed {
            return (self.chunk > 0).then(|| self.list.clone());
        }
        let end = (self.at + self.chunk).min(self.list.len());
        (self.chunk > 0).then(|| [&self.list[..self.at], &self.list[end..]].concat())
    }

    /// Says how the candidate did: after how many elements it failed, if it did.
    pub fn report(&mut self, failed: Option<usize>) {
        if !self.confirmed {
            match failed {
                Some(len) => {
                    self.confirmed = true;
                    self.list.truncate(len);
                    self.begin(self.list.len() / 2);
                }
                None => self.chunk = 0,
            }
            return;
        }
        match failed {
            Some(len) => {
                self.list = self.candidate().unwrap_or_default();
                self.list.truncate(len);
                self.progress = true;
            }
            None => self.at += self.chunk,
        }
        if self.at >= self.list.len() {
            match self.chunk {
                1 if self.progress => self.begin(1),
                chunk => self.begin(chunk / 2),
            }
        }
    }

    /// The shortest sequence that was seen to fail; `None` if none was.
    pub fn shortest(&self) -> Option<&[T]> {
        self.confirmed.then_some(&self.list[..])
    }

    fn begin(&mut self, chunk: usize) {
        self.at = 0;
        self.progress = false;
        self.chunk = match self.list.is_empty() {
            true => 0,
            false => chunk.min(self.list.len()),
        };
    }
}
