/* A protocol of the seed's shape, with a finite graph that never ends: readers with interrupts off, the hardware that acknowledges for them, a zapper that waits
   for all acknowledgements before it drops the lock, and faulters. Every option of a loop is one step, so that the graph is the one of the lab's
   program. READERS, ENTRIES and FAULTERS are defined in front of this text. */

bit low[ENTRIES] = 1;
bit high[ENTRIES] = 1;
bit lock;
bit off[READERS];
bit pending[READERS];

active [READERS] proctype reader() {
    byte pc, e;
    bit l, h;
    do
    :: d_step { pc == 0 -> off[_pid] = 1; pc = 1 }
    :: d_step { pc == 1 -> if :: low[e] == 0 -> e++; pc = (e == ENTRIES -> 4 : 1) :: else -> l = 1; pc = 2 fi }
    :: d_step { pc == 2 -> h = high[e]; pc = 3 }
    :: d_step { pc == 3 ->
           if
           :: low[e] != l -> pc = 1
           :: else -> assert(h == 1); e++; pc = (e == ENTRIES -> 4 : 1)
           fi;
           l = 0; h = 0 }
    :: d_step { pc == 4 -> off[_pid] = 0; e = 0; pc = 0 }
    od
}

active [READERS] proctype hardware() {
    do
    :: d_step { pending[_pid - READERS] && !off[_pid - READERS] -> pending[_pid - READERS] = 0 }
    od
}

active proctype zapper() {
    byte pc, e, i;
    do
    :: d_step { pc == 0 && lock == 0 -> lock = 1; pc = 1 }
    :: d_step { pc == 1 -> low[e] = 0; pc = 2 }
    :: d_step { pc == 2 -> high[e] = 0; e++; if :: e == ENTRIES -> e = 0; pc = 4 :: else -> pc = 1 fi }
    :: d_step { pc == 4 -> for (i : 0 .. READERS - 1) { pending[i] = 1 }; i = 0; pc = 5 }
    :: d_step { pc == 5 && ALL_TAKEN -> pc = 6 }
    :: d_step { pc == 6 -> lock = 0; pc = 0 }
    od
}

active [FAULTERS] proctype faulter() {
    byte pc, e;
    do
    :: d_step { pc == 0 && lock == 0 -> lock = 1; pc = 1 }
    :: d_step { pc == 1 -> pc = (low[e] == 0 -> 2 : 4) }
    :: d_step { pc == 2 -> high[e] = 1; pc = 3 }
    :: d_step { pc == 3 -> low[e] = 1; pc = 4 }
    :: d_step { pc == 4 -> lock = 0; e++; if :: e == ENTRIES -> e = 0 :: else fi; pc = 0 }
    od
}
