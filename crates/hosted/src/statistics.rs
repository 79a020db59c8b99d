//! What each CPU was asked to do.

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened on one CPU since the machine started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Interrupts that other CPUs raised here; several of one vector may have been taken as one.
    pub ipis: u64,
    /// TLB invalidations executed on this CPU.
    pub local_invalidations: u64,
    /// TLB invalidations that this CPU asked the hypervisor for, once per call.
    pub paravirtual_invalidations: u64,
    /// TLB invalidations that this CPU broadcast.
    pub broadcast_invalidations: u64,
    /// Times this CPU waited for its broadcasts.
    pub broadcast_syncs: u64,
    /// Grace periods that this CPU waited for.
    pub grace_periods: u64,
    /// Page tables loaded.
    pub roots_loaded: u64,
}

macro_rules! counters {
    ($($count:ident => $field:ident),* $(,)?) => {
        /// A [`Statistics`] that is being counted. Relaxed: it orders nothing, and is read for people.
        #[derive(Default)]
        #[repr(align(128))]
        pub(crate) struct Counters {
            $($field: AtomicU64,)*
        }

        impl Counters {
            $(pub(crate) fn $count(&self) {
                self.$field.fetch_add(1, Ordering::Relaxed);
            })*

            pub(crate) fn snapshot(&self) -> Statistics {
                Statistics { $($field: self.$field.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    count_ipi => ipis,
    count_local_invalidation => local_invalidations,
    count_paravirtual_invalidation => paravirtual_invalidations,
    count_broadcast_invalidation => broadcast_invalidations,
    count_broadcast_sync => broadcast_syncs,
    count_grace_period => grace_periods,
    count_root_loaded => roots_loaded,
}
