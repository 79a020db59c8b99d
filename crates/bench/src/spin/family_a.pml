/* Family A: one 64-bit entry of 32-bit PAE, read in halves by a fast GUP, zapped and faulted in again by others. Written from the questions of the
   catalogue's pae-* files and the manuals, for SPIN. It shares nothing with the engine or the lab but the names of the choices, which are defined
   in front of this text: READ_..., WRITE_..., FLUSH_..., REMOTE_..., RECHECK_..., TSO, RULE_..., and what CPU 1 and CPU 2 do. */

#define CPUS 3

/* What the halves of an entry hold, by page: A, X, and Y, whose low half is that of A. The low half has the present bit. */
#define A 1
#define X 2
#define Y 3
#define LOW_OF(page) ((page) == Y -> A : (page))
#define HIGH_OF(page) (page)
#define WAS_STORED(l, h) (((l) == A && (h) == A) || ((l) == X && (h) == X) || ((l) == A && (h) == Y))

/* Words of memory: the halves, the page-table lock, the sequence count of the table. */
#define LOW 0
#define HIGH 1
#define LOCK 2
#define SEQUENCE 3
byte memory[4];
/* Which page the file has. */
byte slot = A;

/* Whether the CPU's TLB may hold the page; interrupts; and flushes that an initiator waits for: initiator * CPUS + target. */
bit tlb[CPUS];
bit masked[CPUS];
bit requested[9];

#ifdef TSO
/* What a CPU has stored and others do not see yet. */
chan buffer[CPUS] = [8] of { byte, byte };
#define STORE(cpu, word, value) buffer[cpu]!word, value
#define DRAINED(cpu) (empty(buffer[cpu]))

proctype store_buffer(byte cpu) {
    byte word, value;
end:
    do
    :: atomic { buffer[cpu]?word, value -> memory[word] = value; word = 0; value = 0 }
    od
}
#else
#define STORE(cpu, word, value) memory[word] = value
#define DRAINED(cpu) true
#endif

/* What the CPU does when it is asked to flush. By IPI it must have interrupts on, and taking one drains the buffer; a broadcast does not ask. */
proctype flushes(byte cpu) {
end:
    do
#ifdef REMOTE_BROADCAST
    :: d_step { (requested[cpu] || requested[3 + cpu] || requested[6 + cpu]) ->
#else
    :: d_step { (requested[cpu] || requested[3 + cpu] || requested[6 + cpu]) && !masked[cpu] && DRAINED(cpu) ->
#endif
           tlb[cpu] = 0; requested[cpu] = 0; requested[3 + cpu] = 0; requested[6 + cpu] = 0 }
    od
}

inline flush(me) {
    d_step { DRAINED(me) -> tlb[me] = 0 };
#ifdef REMOTE_PARAVIRTUAL
    /* The hypervisor flushes, whatever the others do. */
    d_step { tlb[0] = 0; tlb[1] = 0; tlb[2] = 0 }
#else
    d_step { requested[me * 3] = (me != 0); requested[me * 3 + 1] = (me != 1); requested[me * 3 + 2] = (me != 2) };
    (!requested[me * 3] && !requested[me * 3 + 1] && !requested[me * 3 + 2])
#endif
}

inline acquire(me) { d_step { DRAINED(me) && memory[LOCK] == 0 -> memory[LOCK] = 1 } }
inline release(me) { STORE(me, LOCK, 0) }

/* Writers under the lock bump the count before and after. Their own buffer was drained by the lock, so memory has what they stored before. */
inline begin_write(me) {
#ifdef READ_SEQUENCE
    count = memory[SEQUENCE];
    STORE(me, SEQUENCE, count + 1)
#else
    skip
#endif
}
inline end_write(me) {
#ifdef READ_SEQUENCE
    STORE(me, SEQUENCE, count + 2)
#else
    skip
#endif
}

/* Clears the entry by an exchange of 64 bits, and flushes if there was something. */
inline zap(me) {
    acquire(me);
    if
    :: memory[LOW] != 0 ->
       begin_write(me);
       d_step { DRAINED(me) -> memory[LOW] = 0; memory[HIGH] = 0 };
       end_write(me);
#ifdef FLUSH_BEFORE_UNLOCK
       flush(me);
       release(me)
#else
       release(me);
       flush(me)
#endif
    :: else -> release(me)
    fi
}

/* User code accesses the page until it succeeds: by the TLB, by a walk, which reads all 64 bits, or after a fault. The fault returns by IRET. */
inline touch(me) {
    do
    :: tlb[me] -> break
    :: d_step { memory[LOW] != 0 -> tlb[me] = 1 }; break
    :: memory[LOW] == 0 ->
       acquire(me);
       if
       :: memory[LOW] == 0 ->
          page = slot;
          begin_write(me);
#ifdef WRITE_XCHG64
          d_step { DRAINED(me) -> memory[HIGH] = HIGH_OF(page); memory[LOW] = LOW_OF(page) };
#else
          STORE(me, HIGH, HIGH_OF(page));
          STORE(me, LOW, LOW_OF(page));
#endif
          end_write(me)
       :: else
       fi;
       release(me);
       DRAINED(me)
    od
}

/* The file gets another page, and the old one is unmapped. */
inline replace(me, new) { slot = new; zap(me) }

proctype cpu1() {
    byte page, count, round;
    CPU1
}

proctype cpu2() {
    byte page, count;
    CPU2
}

/* Reads both halves again, and once more from the start if they are not what they were. */
#define AGAIN l2 = memory[LOW]; if :: l2 != l -> goto retry :: else fi; h2 = memory[HIGH]; if :: h2 != h -> goto retry :: else fi

/* Fast GUP. */
proctype reader() {
    byte l, h, l2, h2;
    masked[0] = 1;
retry:
    l2 = 0; h2 = 0;
#if defined(READ_READ_ONCE)
    l = memory[LOW]; h = memory[HIGH];
#elif defined(READ_HIGH_LOW)
    h = memory[HIGH]; l = memory[LOW];
#elif defined(READ_LOW_THEN_HIGH)
    l = memory[LOW];
    if :: l != 0 -> h = memory[HIGH] :: else fi;
#elif defined(READ_LOW_HIGH_LOW)
    l = memory[LOW]; h = memory[HIGH]; l2 = memory[LOW];
    if :: l2 != l -> goto retry :: else fi;
#elif defined(READ_REREAD_1)
    l = memory[LOW]; h = memory[HIGH]; AGAIN;
#elif defined(READ_REREAD_2)
    l = memory[LOW]; h = memory[HIGH]; AGAIN; AGAIN;
#elif defined(READ_REREAD_3)
    l = memory[LOW]; h = memory[HIGH]; AGAIN; AGAIN; AGAIN;
#elif defined(READ_CMPXCHG8B)
    d_step { l = memory[LOW]; h = memory[HIGH] };
#elif defined(READ_SEQUENCE)
    l2 = memory[SEQUENCE];
    if :: l2 % 2 == 1 -> goto retry :: else fi;
    l = memory[LOW]; h = memory[HIGH]; h2 = memory[SEQUENCE];
    if :: h2 != l2 -> goto retry :: else fi;
#else
#error "no READ_ is defined"
#endif
    if
    :: l == 0 -> goto done
    :: else
    fi;
#if defined(RULE_PHANTOM_FRAME)
    assert(WAS_STORED(l, h));
#elif defined(RULE_SPECIAL_PINNED)
    /* Every entry is special here. Is the bit that says so seen? */
#if defined(SPECIAL_CHECK_PTE_ONLY)
    assert(false);
#elif defined(SPECIAL_SOFTW5)
    assert(h != 0);
#elif !defined(SPECIAL_SOFTW1)
#error "no SPECIAL_ is defined"
#endif
#elif defined(RULE_WRONG_PAGE)
#if defined(RECHECK_TORN_LOW_HIGH)
    l2 = memory[LOW]; h2 = memory[HIGH];
#elif defined(RECHECK_TORN_HIGH_LOW)
    h2 = memory[HIGH]; l2 = memory[LOW];
#elif defined(RECHECK_ATOMIC)
    d_step { l2 = memory[LOW]; h2 = memory[HIGH] };
#elif defined(RECHECK_NONE)
    l2 = l; h2 = h;
#else
#error "no RECHECK_ is defined"
#endif
    assert(l2 != l || h2 != h || WAS_STORED(l, h));
#else
#error "no RULE_ is defined"
#endif
done:
    masked[0] = 0
}

init {
    atomic {
#ifndef STARTS_UNMAPPED
        memory[LOW] = LOW_OF(A);
        memory[HIGH] = HIGH_OF(A);
        tlb[0] = 1; tlb[1] = 1; tlb[2] = 1;
#endif
#ifdef TSO
        run store_buffer(0); run store_buffer(1); run store_buffer(2);
#endif
        run flushes(0); run flushes(1); run flushes(2);
        run reader(); run cpu1(); run cpu2()
    }
}
