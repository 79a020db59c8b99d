//! Memory management on lockless page tables: folios, faults, zap, shootdown, fast GUP.
#![no_std]
