//! Addresses and frame numbers, each its own type.

use core::fmt;

/// Bytes in the smallest page, on every mode of x86.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// `log2` of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// A virtual address. Whether it is legal depends on the paging mode: this type does not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct VirtAddr(u64);

/// A physical address. Up to 52 bits on the machines of today (SDM vol. 3A, 4.1.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PhysAddr(u64);

/// The number of a 4 KiB physical frame: a [`PhysAddr`] without its low 12 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Frame(u64);

impl VirtAddr {
    /// The address with this value.
    #[inline]
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The value.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The address `bytes` further on; `None` past the end of the 64-bit space.
    #[inline]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }

    /// The address `bytes` further on, wrapping at the end of the 64-bit space.
    #[inline]
    pub const fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// The largest multiple of `size` that is not above `self`. `size` must be a power of two.
    #[inline]
    pub const fn align_down(self, size: u64) -> Self {
        Self(self.0 & !(size - 1))
    }

    /// Whether this is a multiple of `size`, a power of two.
    #[inline]
    pub const fn is_aligned(self, size: u64) -> bool {
        self.0 & (size - 1) == 0
    }
}

impl PhysAddr {
    /// The address with this value.
    #[inline]
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The value.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The frame that holds this address.
    #[inline]
    pub const fn frame(self) -> Frame {
        Frame(self.0 >> PAGE_SHIFT)
    }

    /// Whether this is a multiple of `size`, a power of two.
    #[inline]
    pub const fn is_aligned(self, size: u64) -> bool {
        self.0 & (size - 1) == 0
    }
}

impl Frame {
    /// The frame with this number.
    #[inline]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The address of the frame's first byte.
    #[inline]
    pub const fn start(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }

    /// The frame `count` frames further on, wrapping at 2^64.
    #[inline]
    pub const fn wrapping_add(self, count: u64) -> Self {
        Self(self.0.wrapping_add(count))
    }
}

macro_rules! hexadecimal {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}

hexadecimal!(VirtAddr, PhysAddr, Frame);
