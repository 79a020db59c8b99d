//! Litmus files of memory-management races, and the protocol variants they name.
