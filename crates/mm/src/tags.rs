//! Tagged addresses: upper bits of a user address that the processor ignores, so that programs keep something of their own in them (SDM vol. 3A, "Linear-Address
//! Masking"; Linux: `untagged_addr`).
//!
//! The processor drops the tag before it translates, and before it reports a page fault. But programs also hand their pointers to the kernel, to be pinned or unmapped: what takes a range of user
//! addresses drops it likewise, by what holds in *that* address space, which need not be the caller's own (Linux: `untagged_addr_remote`). Where something new is to be placed a tag
//! makes no sense, and the address is refused as one that user code cannot have.

use machine::addr::VirtAddr;

/// Which bits of a user address are a tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Tags {
    /// None: an address with such bits is not canonical.
    #[default]
    None,
    /// 62 to 57 (CR3.LAM_U57).
    Lam57,
    /// 62 to 48 (CR3.LAM_U48). An address space with five levels then reaches no further than one with four.
    Lam48,
}

impl Tags {
    const fn bits(self) -> u64 {
        const fn up_to_62(first: u32) -> u64 {
            u64::MAX >> 1 & (u64::MAX << first)
        }
        match self {
            Self::None => 0,
            Self::Lam57 => up_to_62(57),
            Self::Lam48 => up_to_62(48),
        }
    }

    /// The address without its tag. One of the upper half, which user code cannot have, stays as it is.
    #[inline]
    pub const fn drop_from(self, address: VirtAddr) -> VirtAddr {
        let value = address.as_u64();
        VirtAddr::new(if value >> 63 == 0 { value & !self.bits() } else { value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_manual() {
        assert_eq!(Tags::None.bits(), 0);
        assert_eq!(Tags::Lam57.bits(), 0x7e00_0000_0000_0000);
        assert_eq!(Tags::Lam48.bits(), 0x7fff_0000_0000_0000);
    }

    #[test]
    fn addresses_of_the_upper_half_stay() {
        let address = VirtAddr::new(0xffff_8000_0000_0000);
        assert_eq!(Tags::Lam48.drop_from(address), address);
    }
}
