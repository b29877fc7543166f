// SPDX-License-Identifier: GPL-2.0

//! Damage of the entries of many large folios.

use super::{folios, Class, ONE_PLACE};

pub const FOLIOS: &[Class] = &[
    folios("one of many not preserved", "NotPreserved", |it| {
        it.set_frame(40, it.lost);
    }),
    folios("one of many in the kernel", "NotPreserved", |it| {
        it.set_frame(64, it.kernel);
    }),
    folios("two of many the same", "NotPreserved", |it| {
        let folio = it.frame(9);
        it.set_frame(41, folio);
    }),
    folios("two of many the same, far apart", "NotPreserved", |it| {
        let folio = it.frame(3);
        it.set_frame(68, folio);
    }),
    folios("one of many of another order", "NotPreserved", |it| {
        let folio = it.frame(70);
        it.set_frame(69, folio);
    }),
    folios("the large one within itself", "NotPreserved", |it| {
        let folio = it.frame(70);
        it.set_frame(70, folio + (256 << 12));
    }),
    folios("one of many in the place of another", ONE_PLACE, |it| {
        it.set(it.entries, 2 * 65 + 1, 4 << 32);
    }),
];
