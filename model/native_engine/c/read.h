// Nothing but reading, as fast as a team can: what a pass that did nothing else would take.
#pragma once
#include "dots.h"
#include "threads.h"

#define BYTES_PER_TASK (1L << 15)

typedef struct {
    const char *memory;
    long bytes;
    atomic_int any;  // of what was read, so that it must be
} Reading;

static void read_memory(Member *self, void *argument) {
    Reading *reading = argument;
    long total = reading->bytes / BYTES_PER_TASK;
    ivec seen = isplat(0);
    TASKS(self, task, total) {
        const char *from = reading->memory + task * BYTES_PER_TASK;
        for (long i = 0; i < BYTES_PER_TASK; i += 4 * sizeof seen) {
            for (long line = 0; line < (long)(4 * sizeof seen); line += 64)
                __builtin_prefetch(from + i + line + PREFETCH_DISTANCE, 0, 2);
            UNROLL for (int v = 0; v < 4; v++) seen |= (ivec)load(from + i + v * sizeof seen);
        }
    }
    int32_t lanes[LANES], any = 0;
    memcpy(lanes, &seen, sizeof lanes);
    for (int i = 0; i < LANES; i++) any |= lanes[i];
    atomic_fetch_or(&reading->any, any);
    barrier(self, total);
}
