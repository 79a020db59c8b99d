//! A simulated multiprocessor that explores every interleaving of real code.
