//! What every guard of a lock has in common.

/// Gives a guard that has a method `release` an `unlock`, and releases it when it is dropped otherwise.
macro_rules! released_once {
    ($guard:ident) => {
        impl<C: $crate::Cpu> $guard<'_, C> {
            /// Releases the lock: the same as dropping the guard, but a trace then names the caller's line.
            #[inline]
            #[track_caller]
            pub fn unlock(self) {
                core::mem::ManuallyDrop::new(self).release();
            }
        }

        impl<C: $crate::Cpu> Drop for $guard<'_, C> {
            #[inline]
            #[track_caller]
            fn drop(&mut self) {
                self.release();
            }
        }
    };
}
