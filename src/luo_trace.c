// SPDX-License-Identifier: GPL-2.0
/*
 * Tracepoints are made by C macros; this is how Rust reaches them. The order is
 * that of enum Step in trace.rs.
 */
#define CREATE_TRACE_POINTS
#include "luo_trace.h"

void luo_trace_step(unsigned int step, const char *session, u64 token,
		    u64 duration_ns, int error);

void luo_trace_step(unsigned int step, const char *session, u64 token,
		    u64 duration_ns, int error)
{
	switch (step) {
	case 0:
		trace_luo_preserve(session, token, duration_ns, error);
		break;
	case 1:
		trace_luo_unpreserve(session, token, duration_ns, error);
		break;
	case 2:
		trace_luo_prepare(session, token, duration_ns, error);
		break;
	case 3:
		trace_luo_freeze(session, token, duration_ns, error);
		break;
	case 4:
		trace_luo_unfreeze(session, token, duration_ns, error);
		break;
	case 5:
		trace_luo_retrieve(session, token, duration_ns, error);
		break;
	case 6:
		trace_luo_can_finish(session, token, duration_ns, error);
		break;
	case 7:
		trace_luo_finish(session, token, duration_ns, error);
		break;
	}
}
