//! The tests of the package from outside, in one program: each program compiles and links what it tests anew.

mod areas;
mod areas_model;
mod device_pages;
mod driver_pressure;
mod gate;
mod gather;
mod guard_regions;
mod gup;
mod gup_files;
mod gup_flags;
mod gup_model;
mod gup_release;
mod gup_threads;
mod hmm;
mod huge;
mod huge_anonymous;
mod huge_threads;
mod lazy;
mod mapping_dirty;
mod merge;
mod migration_meanwhile;
mod notifiers;
mod numa;
mod out_of_frames;
mod prepare;
mod protection_keys;
mod ptdump;
mod reclaim;
mod reclaim_threads;
mod shared_tables;
mod space_parts;
mod special;
mod special_ranges;
mod stack;
mod table_check;
mod tags;
mod threads;
mod trace;
mod uffd;

// What they share.
mod audit;
mod common;
mod driver;
mod memory;
mod naive;
