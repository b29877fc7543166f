// SPDX-License-Identifier: GPL-2.0
/*
 * Tracepoints are made by C macros; this is how Rust reaches them.
 */
#define CREATE_TRACE_POINTS
#include "luo_trace.h"

/* As enum Step in trace.rs. */
enum luo_step {
	LUO_PRESERVE,
	LUO_UNPRESERVE,
	LUO_PREPARE,
	LUO_FREEZE,
	LUO_UNFREEZE,
	LUO_RETRIEVE,
	LUO_CAN_FINISH,
	LUO_FINISH,
};

/* Whether anybody listens: else a name need not be escaped. */
bool luo_trace_enabled(enum luo_step step);

void luo_trace_step(enum luo_step step, const char *session, u64 token,
		    u64 duration_ns, int error);

bool luo_trace_enabled(enum luo_step step)
{
	switch (step) {
	case LUO_PRESERVE:
		return trace_luo_preserve_enabled();
	case LUO_UNPRESERVE:
		return trace_luo_unpreserve_enabled();
	case LUO_PREPARE:
		return trace_luo_prepare_enabled();
	case LUO_FREEZE:
		return trace_luo_freeze_enabled();
	case LUO_UNFREEZE:
		return trace_luo_unfreeze_enabled();
	case LUO_RETRIEVE:
		return trace_luo_retrieve_enabled();
	case LUO_CAN_FINISH:
		return trace_luo_can_finish_enabled();
	case LUO_FINISH:
		return trace_luo_finish_enabled();
	}
	return false;
}

void luo_trace_step(enum luo_step step, const char *session, u64 token,
		    u64 duration_ns, int error)
{
	switch (step) {
	case LUO_PRESERVE:
		trace_luo_preserve(session, token, duration_ns, error);
		break;
	case LUO_UNPRESERVE:
		trace_luo_unpreserve(session, token, duration_ns, error);
		break;
	case LUO_PREPARE:
		trace_luo_prepare(session, token, duration_ns, error);
		break;
	case LUO_FREEZE:
		trace_luo_freeze(session, token, duration_ns, error);
		break;
	case LUO_UNFREEZE:
		trace_luo_unfreeze(session, token, duration_ns, error);
		break;
	case LUO_RETRIEVE:
		trace_luo_retrieve(session, token, duration_ns, error);
		break;
	case LUO_CAN_FINISH:
		trace_luo_can_finish(session, token, duration_ns, error);
		break;
	case LUO_FINISH:
		trace_luo_finish(session, token, duration_ns, error);
		break;
	}
}
