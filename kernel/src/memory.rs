//! What the kernel takes of the machine's memory when it starts, and never gives back.

use core::ptr::NonNull;

use machine::Frame;
use machine::addr::PAGE_SIZE;

use crate::arch::{Memory, at_physical};

/// The memory that is not taken yet, from its start on.
pub(crate) struct Bump {
    left: Memory,
}

impl Bump {
    pub(crate) fn new(memory: Memory) -> Self {
        Self { left: memory }
    }

    /// How many bytes are left.
    pub(crate) fn bytes(&self) -> u64 {
        self.left.end.saturating_sub(self.left.start)
    }

    /// Takes frames in a row, the first at a multiple of `align` frames.
    ///
    /// # Panics
    /// There is not so much.
    pub(crate) fn frames(&mut self, count: u64, align: u64) -> Frame {
        let start = self.left.start.next_multiple_of(align * PAGE_SIZE);
        assert!(
            start + count * PAGE_SIZE <= self.left.end,
            "too little memory for {count} frames: give the machine 128 MiB at least (qemu -m 128)"
        );
        self.left.start = start + count * PAGE_SIZE;
        Frame::new(start / PAGE_SIZE)
    }

    /// So many values, for ever.
    pub(crate) fn all<T>(&mut self, count: usize, mut each: impl FnMut(usize) -> T) -> &'static [T] {
        let bytes = (count * size_of::<T>()).next_multiple_of(PAGE_SIZE as usize) as u64;
        let first = self.frames(bytes.max(PAGE_SIZE) / PAGE_SIZE, 1);
        let at = NonNull::new(at_physical(first.start().as_u64())).expect("the window is not at 0").cast::<T>();
        for index in 0..count {
            // SAFETY: the frames are ours alone, long enough, and aligned to a page, which is more than any `T` here wants.
            unsafe { at.add(index).write(each(index)) };
        }
        // SAFETY: all of them were written just now; nobody takes the frames back.
        unsafe { core::slice::from_raw_parts(at.as_ptr(), count) }
    }

    /// One value, for ever.
    pub(crate) fn one<T>(&mut self, value: T) -> &'static T {
        let mut value = Some(value);
        &self.all(1, |_| value.take().expect("asked for once"))[0]
    }
}
