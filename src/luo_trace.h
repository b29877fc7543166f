/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of luo.ko: a line for each step in the life of a preserved file.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM luo

#if !defined(_LUO_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _LUO_TRACE_H

#include <linux/tracepoint.h>
#include <linux/types.h>

DECLARE_EVENT_CLASS(luo_step,
	TP_PROTO(const char *session, u64 token, u64 duration_ns, int error),
	TP_ARGS(session, token, duration_ns, error),
	TP_STRUCT__entry(
		__string(session, session)
		__field(u64, token)
		__field(u64, duration_ns)
		__field(int, error)
	),
	TP_fast_assign(
		__assign_str(session);
		__entry->token = token;
		__entry->duration_ns = duration_ns;
		__entry->error = error;
	),
	TP_printk("session=%s token=%#llx duration_ns=%llu error=%d",
		  __get_str(session), __entry->token, __entry->duration_ns,
		  __entry->error)
);

#define LUO_STEP(name)							\
DEFINE_EVENT(luo_step, luo_##name,					\
	TP_PROTO(const char *session, u64 token, u64 duration_ns, int error), \
	TP_ARGS(session, token, duration_ns, error))

LUO_STEP(preserve);
LUO_STEP(unpreserve);
LUO_STEP(prepare);
LUO_STEP(freeze);
LUO_STEP(unfreeze);
LUO_STEP(retrieve);
LUO_STEP(can_finish);
LUO_STEP(finish);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE luo_trace
#include <trace/define_trace.h>
