/* Repeats a test on two threads, and prints every final state once: three registers of each thread, and two variables. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void run_function(uint64_t *x, uint64_t *y, uint64_t *out);

/* One run: variables on cache lines of their own, and a place to meet. */
struct one {
    uint64_t x __attribute__((aligned(64)));
    uint64_t y __attribute__((aligned(64)));
    unsigned there __attribute__((aligned(64)));
    uint64_t out[2][3];
};

struct thread {
    struct one *all;
    long times;
    run_function *run;
    int number;
};

static void *work(void *argument) {
    struct thread *me = argument;
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(me->number, &core);
    /* Where this is not allowed the threads run as they are placed. */
    sched_setaffinity(0, sizeof core, &core);
    for (long i = 0; i < me->times; i++) {
        struct one *one = &me->all[i];
        __atomic_fetch_add(&one->there, 1, __ATOMIC_SEQ_CST);
        /* The other may wait for a core: then nothing is raced, but nothing hangs either. */
        for (long spins = 0; __atomic_load_n(&one->there, __ATOMIC_SEQ_CST) < 2; spins++)
            if (spins > 1000) sched_yield();
        me->run(&one->x, &one->y, one->out[me->number]);
    }
    return NULL;
}

static int compare(const void *left, const void *right) {
    const uint64_t *a = left, *b = right;
    for (int i = 0; i < 8; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

static int repeat(long times, uint64_t x, uint64_t y, run_function *run0, run_function *run1) {
    struct one *all = aligned_alloc(64, times * sizeof *all);
    uint64_t(*states)[8] = malloc(times * sizeof *states);
    if (!all || !states) return 1;
    for (long i = 0; i < times; i++) all[i] = (struct one){.x = x, .y = y};
    struct thread threads[2] = {{all, times, run0, 0}, {all, times, run1, 1}};
    pthread_t other;
    if (pthread_create(&other, NULL, work, &threads[1])) return 1;
    pthread_t mine;
    if (pthread_create(&mine, NULL, work, &threads[0])) return 1;
    pthread_join(mine, NULL);
    pthread_join(other, NULL);
    for (long i = 0; i < times; i++) {
        for (int j = 0; j < 6; j++) states[i][j] = all[i].out[j / 3][j % 3];
        states[i][6] = all[i].x;
        states[i][7] = all[i].y;
    }
    qsort(states, times, sizeof *states, compare);
    for (long i = 0; i < times; i++) {
        if (i && !compare(states[i], states[i - 1])) continue;
        for (int j = 0; j < 8; j++) printf("%lu%c", states[i][j], j == 7 ? '\n' : ' ');
    }
    return 0;
}

