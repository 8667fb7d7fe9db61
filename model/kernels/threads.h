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
#define SPINS 200      // tries before a waiting thread lets others run
#define PATIENCE 1200  // tries before it sleeps until the next pass
#define TASK_BITS 28   // of a ticket; the rest is the number of the phase

typedef struct Team Team;

typedef struct {
    _Alignas(64) atomic_ulong ticket;  // the phase, and how many of the tasks dealt to this member are taken
    _Alignas(64) Team *team;
    pthread_t thread;
    long number;
    unsigned long phase;
    long target, done;  // tasks of all phases so far, and those done by this member but not yet counted
    char *scratch;      // the thread's own memory
} Member;

struct Team {
    long size, asked;
    pid_t owner;  // threads do not survive a fork
    void (*work)(Member *, void *);
    void *argument;
    unsigned long phase;  // where the pass begins
    long target;
    _Alignas(64) atomic_long completed;  // tasks, ever
    _Alignas(64) atomic_long passes;     // begun
    atomic_long open;                    // the number of the pass that may be joined, or 0
    atomic_long inside;                  // members at work on it, but for the caller
    atomic_int quit;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    Member members[MAX_THREADS];
};

static inline void relax(long tries) {
    if (tries > SPINS) {
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

// Ends a phase of `total` tasks: all are done, and what they wrote is seen, when this returns.
static void barrier(Member *self, long total) {
    atomic_long *completed = &self->team->completed;
    if (self->done) atomic_fetch_add_explicit(completed, self->done, memory_order_acq_rel);
    self->done = 0;
    self->target += total;
    self->phase++;
    for (long tries = 0; atomic_load_explicit(completed, memory_order_acquire) < self->target; tries++) relax(tries);
}

static void work_on(Member *self) {
    self->phase = self->team->phase;
    self->target = self->team->target;
    self->team->work(self, self->team->argument);
}

static void *wait_for_passes(void *argument) {
    Member *self = argument;
    Team *team = self->team;
    for (long seen = 0, now;;) {
        for (long tries = 0; (now = atomic_load(&team->passes)) == seen && tries < PATIENCE; tries++) relax(tries);
        if (now == seen) {
            pthread_mutex_lock(&team->lock);
            while ((now = atomic_load(&team->passes)) == seen) pthread_cond_wait(&team->wake, &team->lock);
            pthread_mutex_unlock(&team->lock);
        }
        if (atomic_load(&team->quit)) return NULL;
        atomic_fetch_add(&team->inside, 1);
        if (atomic_load(&team->open) == now) work_on(self);
        atomic_fetch_sub(&team->inside, 1);
        seen = now;
    }
}

static void announce(Team *team) {
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->passes, 1);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
}

// Does the work with the whole team, of which the caller is one.
static void run_team(Team *team, void (*work)(Member *, void *), void *argument) {
    Member *caller = &team->members[0];
    team->work = work;
    team->argument = argument;
    team->phase = caller->phase;
    team->target = caller->target;
    if (team->size > 1) {
        atomic_store(&team->open, atomic_load(&team->passes) + 1);
        announce(team);
    }
    work_on(caller);
    atomic_store(&team->open, 0);
    for (long tries = 0; atomic_load(&team->inside); tries++) relax(tries);
}

static void end_team(Team *team) {
    if (!team) return;
    if (team->owner == getpid()) {
        atomic_store(&team->quit, 1);
        announce(team);
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
    team->asked = size;
    team->owner = getpid();
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
    sigset_t all, before;  // signals are for the threads of Python
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    size = size < 1 ? 1 : size > MAX_THREADS ? MAX_THREADS : size;
    for (long i = 0; i < size; i++) {
        Member *member = &team->members[i];
        *member = (Member){.team = team, .number = i, .phase = 1};
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
