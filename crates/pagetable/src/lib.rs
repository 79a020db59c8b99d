//! x86 page tables: PAE, 4-level and 5-level; lockless walks, exact accessed and dirty bits.
#![no_std]
