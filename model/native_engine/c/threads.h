// A team of threads that runs the phases of a pass together. Tasks are dealt out in equal ranges, and who is done takes
// from the others. A phase ends when its tasks are done, not when every thread has come by: a thread that the system
// has put aside holds up nobody, unless in the middle of a task, and skips what the others did without it.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_THREADS 256
#define SPINS_BEFORE_YIELD 200   // after which a waiting thread lets others run
#define SPINS_BEFORE_SLEEP 1200  // after which it sleeps
#ifndef TASK_BITS
#define TASK_BITS 28   // of a ticket; the rest is the number of the phase in its pass
#endif

typedef struct Team Team;

typedef struct {
    _Alignas(64) atomic_ulong ticket;  // the phase, and how many of the tasks dealt to this member are taken
    _Alignas(64) Team *team;
    pthread_t thread;
    long number;
    unsigned long phase;  // of the pass, from 1 on
    long target, done;    // tasks of all phases so far, and those done by this member but not yet counted
    char *scratch;        // the thread's own memory
} Member;

struct Team {
    long size, requested_size;
    pid_t owner;  // threads do not survive a fork
    void (*work)(Member *, void *);
    void *argument;
    _Alignas(64) atomic_long completed;  // tasks of this pass
    _Alignas(64) atomic_long passes;     // begun
    atomic_long open;                    // the number of the pass that may be joined, or 0
    atomic_long outside;                 // 0, less the members at work on it, but for the caller
    atomic_long sleepers;
    atomic_int quit;
    pthread_mutex_t lock;
    pthread_cond_t reached;  // some counter what somebody sleeps for
    Member members[MAX_THREADS];
};

static inline void relax(long tries) {
    if (tries > SPINS_BEFORE_YIELD) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// A task of this phase that nobody has taken, below `total`; -1 when none is left.
static inline long take(Member *self, long total) {
    Team *team = self->team;
    for (long i = 0; i < team->size; i++) {
        Member *other = &team->members[(self->number + i) % team->size];
        long first = total * other->number / team->size, end = total * (other->number + 1) / team->size;
        unsigned long ticket = atomic_load_explicit(&other->ticket, memory_order_relaxed), fresh;
        do {
            if (ticket >> TASK_BITS > self->phase) return -1;  // the others have finished it
            fresh = ticket >> TASK_BITS == self->phase ? ticket : self->phase << TASK_BITS;
            if (first + (long)(fresh & ((1ul << TASK_BITS) - 1)) >= end) break;
            if (atomic_compare_exchange_weak_explicit(&other->ticket, &ticket, fresh + 1, memory_order_relaxed,
                                                      memory_order_relaxed)) {
                self->done++;
                return first + (long)(fresh & ((1ul << TASK_BITS) - 1));
            }
        } while (1);
    }
    return -1;
}

#define TASKS(self, task, total) for (long task; (task = take(self, total)) >= 0;)

// Waits until a counter has reached `goal`, for a while awake: what it counts is seen when this returns.
static void await(Team *team, atomic_long *counter, long goal) {
    for (long tries = 0; tries < SPINS_BEFORE_SLEEP; tries++) {
        if (atomic_load_explicit(counter, memory_order_acquire) >= goal) return;
        relax(tries);
    }
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleepers, 1);  // before it looks again, as others count before they look for sleepers
    while (atomic_load(counter) < goal) pthread_cond_wait(&team->reached, &team->lock);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->lock);
}

// Adds to a counter, and wakes who sleeps when it has reached `goal`.
static void add(Team *team, atomic_long *counter, long number, long goal) {
    if (atomic_fetch_add(counter, number) + number < goal || !atomic_load(&team->sleepers)) return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->reached);
    pthread_mutex_unlock(&team->lock);
}

// Ends a phase of `total` tasks: all are done, and what they wrote is seen, when this returns.
static void barrier(Member *self, long total) {
    Team *team = self->team;
    self->target += total;
    self->phase++;
    if (self->done) add(team, &team->completed, self->done, self->target);
    self->done = 0;
    await(team, &team->completed, self->target);
}

static void work_on(Member *self) {
    self->phase = 1;
    self->target = 0;
    self->team->work(self, self->team->argument);
}

static void *wait_for_passes(void *argument) {
    Member *self = argument;
    Team *team = self->team;
    for (long now = 0;;) {
        await(team, &team->passes, now + 1);
        now = atomic_load(&team->passes);
        if (atomic_load(&team->quit)) return NULL;
        atomic_fetch_sub(&team->outside, 1);
        if (atomic_load(&team->open) == now) work_on(self);
        add(team, &team->outside, 1, 0);
    }
}

// Does the work with the whole team, of which the caller is one. Nobody else is at work when it begins and when it ends,
// so all counting of phases and tasks begins anew.
static void run_team(Team *team, void (*work)(Member *, void *), void *argument) {
    team->work = work;
    team->argument = argument;
    for (long i = 0; i < team->size; i++) atomic_store_explicit(&team->members[i].ticket, 0, memory_order_relaxed);
    atomic_store_explicit(&team->completed, 0, memory_order_relaxed);
    if (team->size > 1) {
        atomic_store(&team->open, atomic_load(&team->passes) + 1);
        add(team, &team->passes, 1, 0);
    }
    work_on(&team->members[0]);
    atomic_store(&team->open, 0);
    await(team, &team->outside, 0);
}

static void end_team(Team *team) {
    if (!team) return;
    if (team->owner == getpid()) {
        atomic_store(&team->quit, 1);
        add(team, &team->passes, 1, 0);
        for (long i = 1; i < team->size; i++) pthread_join(team->members[i].thread, NULL);
    }
    for (long i = 0; i < team->size; i++) free(team->members[i].scratch);
    free(team);
}

// A team of `size`, or of as many as the system lets be started, each with `scratch` bytes. Null: no memory.
static Team *new_team(long size, size_t scratch) {
    Team *team = aligned_alloc(64, sizeof(Team));
    if (!team) return NULL;
    memset(team, 0, sizeof *team);
    team->requested_size = size;
    team->owner = getpid();
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->reached, NULL);
    sigset_t all, before;  // signals are for the threads of Python, but for a page that is gone where it is read
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    size = size < 1 ? 1 : size > MAX_THREADS ? MAX_THREADS : size;
    for (long i = 0; i < size; i++) {
        Member *member = &team->members[i];
        *member = (Member){.team = team, .number = i};
        member->scratch = aligned_alloc(64, (scratch + 63) / 64 * 64);
        if (!member->scratch) break;
        if (i && pthread_create(&member->thread, NULL, wait_for_passes, member)) {
            free(member->scratch);
            break;
        }
        team->size = i + 1;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!team->size) free(team), team = NULL;
    return team;
}
