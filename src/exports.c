// SPDX-License-Identifier: GPL-2.0
/*
 * What luo.ko gives to other modules: the in-kernel interface of live update
 * for handlers in C, and the symbols of the crate for handlers in Rust.
 */

#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "exports_generated.h"
