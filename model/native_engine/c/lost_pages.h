// A mapped file of weights can become shorter while it is used. Reading a page that is gone raises SIGBUS, which would
// end the process in the middle of a line. During a pass the page is replaced by zeros instead, and counted: the pass
// goes on to its end, and says that its numbers are worthless.
#pragma once
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static atomic_long passes_reading, pages_lost;
static struct sigaction bus_error_before;

// Only what may be called in a signal handler: sysconf and mmap are plain calls of the system.
static void replace_page(int signal, siginfo_t *info, void *context) {
    (void)context;
    long size = sysconf(_SC_PAGESIZE);
    void *page = (void *)((uintptr_t)info->si_addr & ~(uintptr_t)(size - 1));
    int how = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
    if (atomic_load(&passes_reading) && mmap(page, size, PROT_READ | PROT_WRITE, how, -1, 0) != MAP_FAILED)
        atomic_fetch_add(&pages_lost, 1);
    else
        sigaction(signal, &bus_error_before, NULL);  // the error comes again, as if this had not been here
}

// To be called around a pass: how many pages this process had lost when it began.
static long begin_reading(void) {
    struct sigaction now;
    sigaction(SIGBUS, NULL, &now);
    if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != replace_page) {
        struct sigaction ours = {.sa_sigaction = replace_page, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        sigemptyset(&ours.sa_mask);
        bus_error_before = now;
        sigaction(SIGBUS, &ours, NULL);
    }
    atomic_fetch_add(&passes_reading, 1);
    return atomic_load(&pages_lost);
}

// Whether pages were lost since then, in whichever pass.
static bool end_reading(long lost_before) {
    atomic_fetch_sub(&passes_reading, 1);
    return atomic_load(&pages_lost) != lost_before;
}
