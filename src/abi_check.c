// SPDX-License-Identifier: GPL-2.0
/*
 * Holds the header for handlers in C against the kernel's own, at compile time:
 * the same structures, member for member, and the same functions. luo.ko knows
 * the kernel's, through the Rust bindings; a handler may know either.
 *
 * No code comes of it.
 */

#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/liveupdate.h>
#include <linux/stddef.h>

#ifdef _LUO_LIVEUPDATE_H
#error "not the kernel's own <linux/liveupdate.h>"
#endif

#define MEMBER(type, member, of) \
	static_assert(__same_type(((struct type *)0)->member, of))

/* Types of functions and callbacks, in whatever header was included last. */
#define CHECK_TYPES()							\
	MEMBER(liveupdate_file_op_args, handler, struct liveupdate_file_handler *);	\
	MEMBER(liveupdate_file_ops, can_preserve,			\
	       bool (*)(struct liveupdate_file_handler *, struct file *)); \
	MEMBER(liveupdate_file_ops, preserve, int (*)(struct liveupdate_file_op_args *)); \
	MEMBER(liveupdate_file_ops, unpreserve, void (*)(struct liveupdate_file_op_args *)); \
	MEMBER(liveupdate_file_ops, freeze, int (*)(struct liveupdate_file_op_args *)); \
	MEMBER(liveupdate_file_ops, unfreeze, void (*)(struct liveupdate_file_op_args *)); \
	MEMBER(liveupdate_file_ops, retrieve, int (*)(struct liveupdate_file_op_args *)); \
	MEMBER(liveupdate_file_ops, can_finish, bool (*)(struct liveupdate_file_op_args *)); \
	MEMBER(liveupdate_file_ops, finish, void (*)(struct liveupdate_file_op_args *)); \
	MEMBER(liveupdate_file_ops, get_id, unsigned long (*)(struct file *)); \
	MEMBER(liveupdate_file_handler, ops, const struct liveupdate_file_ops *); \
	MEMBER(liveupdate_flb_op_args, flb, struct liveupdate_flb *);	\
	MEMBER(liveupdate_flb_ops, preserve, int (*)(struct liveupdate_flb_op_args *)); \
	MEMBER(liveupdate_flb_ops, unpreserve, void (*)(struct liveupdate_flb_op_args *)); \
	MEMBER(liveupdate_flb_ops, retrieve, int (*)(struct liveupdate_flb_op_args *)); \
	MEMBER(liveupdate_flb_ops, finish, void (*)(struct liveupdate_flb_op_args *)); \
	MEMBER(liveupdate_flb, ops, const struct liveupdate_flb_ops *);	\
	static_assert(__same_type(liveupdate_enabled, bool (void)));	\
	static_assert(__same_type(liveupdate_register_file_handler,	\
				  int (struct liveupdate_file_handler *))); \
	static_assert(__same_type(liveupdate_unregister_file_handler,	\
				  void (struct liveupdate_file_handler *))); \
	static_assert(__same_type(liveupdate_register_flb,		\
				  int (struct liveupdate_file_handler *, struct liveupdate_flb *))); \
	static_assert(__same_type(liveupdate_unregister_flb,		\
				  void (struct liveupdate_file_handler *, struct liveupdate_flb *))); \
	static_assert(__same_type(liveupdate_flb_get_incoming,		\
				  int (struct liveupdate_flb *, void **))); \
	static_assert(__same_type(liveupdate_flb_put_incoming, void (struct liveupdate_flb *))); \
	static_assert(__same_type(liveupdate_flb_get_outgoing,		\
				  int (struct liveupdate_flb *, void **))); \
	static_assert(__same_type(liveupdate_flb_put_outgoing, void (struct liveupdate_flb *)))

/* The kernel's, which keep their names... */
CHECK_TYPES();
typedef struct liveupdate_file_op_args kernel_file_op_args;
typedef struct liveupdate_file_ops kernel_file_ops;
typedef struct liveupdate_file_handler kernel_file_handler;
typedef struct liveupdate_flb_op_args kernel_flb_op_args;
typedef struct liveupdate_flb_ops kernel_flb_ops;
typedef struct liveupdate_flb kernel_flb;
typedef struct luo_flb_private kernel_flb_private;
typedef struct luo_flb_private_state kernel_flb_private_state;

/* ... and ours, which get others. */
#define liveupdate_file_op_args			our_file_op_args
#define liveupdate_file_ops			our_file_ops
#define liveupdate_file_handler			our_file_handler
#define liveupdate_flb_op_args			our_flb_op_args
#define liveupdate_flb_ops			our_flb_ops
#define liveupdate_flb				our_flb
#define luo_flb_private				our_flb_private
#define luo_flb_private_state			our_flb_private_state
#define liveupdate_enabled			our_enabled
#define liveupdate_register_file_handler	our_register_file_handler
#define liveupdate_unregister_file_handler	our_unregister_file_handler
#define liveupdate_register_flb			our_register_flb
#define liveupdate_unregister_flb		our_unregister_flb
#define liveupdate_flb_get_incoming		our_flb_get_incoming
#define liveupdate_flb_put_incoming		our_flb_put_incoming
#define liveupdate_flb_get_outgoing		our_flb_get_outgoing
#define liveupdate_flb_put_outgoing		our_flb_put_outgoing
#undef _LINUX_LIVEUPDATE_H
#include "../include/linux/liveupdate.h"
CHECK_TYPES();

#define SAME_SIZE(type)							\
	static_assert(sizeof(kernel_##type) == sizeof(struct our_##type) && \
		      __alignof__(kernel_##type) == __alignof__(struct our_##type))
#define SAME(type, member)						\
	static_assert(offsetof(kernel_##type, member) == offsetof(struct our_##type, member) && \
		      sizeof_field(kernel_##type, member) == sizeof_field(struct our_##type, member))

SAME_SIZE(file_op_args);
SAME(file_op_args, handler);
SAME(file_op_args, retrieve_status);
SAME(file_op_args, file);
SAME(file_op_args, serialized_data);
SAME(file_op_args, private_data);

SAME_SIZE(file_ops);
SAME(file_ops, can_preserve);
SAME(file_ops, preserve);
SAME(file_ops, unpreserve);
SAME(file_ops, freeze);
SAME(file_ops, unfreeze);
SAME(file_ops, retrieve);
SAME(file_ops, can_finish);
SAME(file_ops, finish);
SAME(file_ops, get_id);
SAME(file_ops, owner);

SAME_SIZE(file_handler);
SAME(file_handler, ops);
SAME(file_handler, compatible);
SAME(file_handler, list);
SAME(file_handler, flb_list);

SAME_SIZE(flb_op_args);
SAME(flb_op_args, flb);
SAME(flb_op_args, data);
SAME(flb_op_args, obj);

SAME_SIZE(flb_ops);
SAME(flb_ops, preserve);
SAME(flb_ops, unpreserve);
SAME(flb_ops, retrieve);
SAME(flb_ops, finish);
SAME(flb_ops, owner);

SAME_SIZE(flb);
SAME(flb, ops);
SAME(flb, compatible);
SAME(flb, private);

SAME_SIZE(flb_private);
SAME(flb_private, list);
SAME(flb_private, outgoing);
SAME(flb_private, incoming);
SAME(flb_private, users);
SAME(flb_private, initialized);

SAME_SIZE(flb_private_state);
SAME(flb_private_state, count);
SAME(flb_private_state, data);
SAME(flb_private_state, obj);
SAME(flb_private_state, lock);
SAME(flb_private_state, finished);
SAME(flb_private_state, retrieve_status);
