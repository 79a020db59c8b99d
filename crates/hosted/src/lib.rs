//! A machine made of OS threads.
