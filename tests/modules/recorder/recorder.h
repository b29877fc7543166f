/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A handler that keeps a record of its callbacks, and fails when it is told to.
 *
 * /dev/luo-recorder-a and /dev/luo-recorder-b make files that can be preserved,
 * each kind by a handler of its own. A number written to such a file is its id,
 * by which it is called in the record; read from it, it gives that number. The
 * files of both kinds depend on the FLB "x", those of kind a on "y", too. Two files
 * with the same id are the same one to their handler, if it is REC_SAME or more.
 *
 * In debugfs, below luo-recorder/:
 *
 *   log       the record, a line for each callback: "preserve a7", "finish a7 1"
 *             (with the retrieve_status), "x.preserve"; writing empties it
 *   fail      "CALLBACK K ERRNO": the k-th call from now on fails with -errno
 *             (of can_finish: says no), or for ERRNO 0 waits until the file is
 *             written to again; so may a second one, in a line of its own; a line
 *             of nothing: none fails
 *   live      number of preserved pages that the handlers and FLBs own
 *   incoming, outgoing   the value of FLB x in the new and the old kernel, taken
 *             by get and put around it; writing 1 gets it, 0 puts it
 *   incoming-y, outgoing-y   the same of FLB y, which has no object in the old kernel
 *   preserved    what KHO has preserved for the next kernel: number, and pages; the
 *             root of its tree, as KHO's debugfs tells it, is to be written before
 *   unrestored   the same of what the previous kernel preserved and nobody restored
 *   linked    writing 0 unregisters the FLBs, 1 registers them again; 2 unregisters
 *             the handlers as well, and registers all of it again
 *   ask       "CALLBACK x": from now on this callback, can_preserve or one of an
 *             FLB, asks for FLB x in the new kernel, and notes with what result
 */
#ifndef LUO_RECORDER_H
#define LUO_RECORDER_H

#include <linux/fs.h>
#include <linux/liveupdate.h>
#include <linux/types.h>

#define REC_KINDS	2
#define REC_SAME	1000

/* What is behind a file. */
struct rec_file {
	unsigned int kind;
	u64 id;
};

/* What the next kernel finds. */
struct rec_page {
	u64 magic;
	u64 id;
	u64 kind;
	u64 frozen;
};

#define REC_MAGIC	0x1e5060d3cULL

/* Pages that are ours: those that were made and those that were handed over. */
extern atomic_t rec_live;

struct rec_page *rec_page_new(u64 id, u64 kind);
void rec_page_unpreserve(struct rec_page *page);
struct rec_page *rec_page_find(u64 data);
void rec_page_free(struct rec_page *page);

/* Adds a line to the record. */
__printf(1, 2) void rec_log(const char *fmt, ...);

/* Notes a call, and says with which errno it is to fail, or 0. */
int rec_fails(const char *callback);

int rec_log_init(struct dentry *dir);
void rec_log_exit(void);

void rec_kho_init(struct dentry *dir);

/* Whether a page is the first of what the previous kernel preserved and nobody has restored. */
bool rec_unrestored(unsigned long pfn);

int rec_files_init(void);
void rec_files_exit(void);
struct liveupdate_file_handler *rec_handler(unsigned int kind);

/* Unregisters the handlers and registers them again, which then have no FLBs. */
int rec_handlers_again(void);

int rec_flbs_init(struct dentry *dir);
void rec_flbs_exit(void);

/* Asks for an FLB, if this callback is to. */
void rec_ask(const char *callback);

#endif
