//! Protection keys of user pages, where the CPU has them and the mode has room for them: CR4.PKE, `rdpkru`, `wrpkru` (SDM vol. 3A, 4.6.2).

use machine::Pkru;

/// Whether this machine's CPUs obey keys. PAE has none.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86")]
    return false;
    #[cfg(target_arch = "x86_64")]
    return core::arch::x86_64::__cpuid(0).eax >= 7 && core::arch::x86_64::__cpuid_count(7, 0).ecx & 1 << 3 != 0;
}

/// Makes this CPU obey them, if it can. Every key allows everything until somebody says otherwise.
pub(super) fn enable() {
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the CPU has the feature, so that CR4 has the bit (22). User pages have keys only where somebody gave them one.
        unsafe {
            core::arch::asm!(
                "mov {cr4}, cr4", "or {cr4}, 1 << 22", "mov cr4, {cr4}",
                cr4 = out(reg) _, options(nostack)
            );
        }
        write(Pkru::ALLOW_ALL);
    }
}

/// What PKRU holds.
pub(super) fn read() -> Pkru {
    #[cfg(target_arch = "x86_64")]
    if available() {
        let bits: u32;
        // SAFETY: `enable` has set CR4.PKE, without which there is no such instruction.
        unsafe { core::arch::asm!("rdpkru", in("ecx") 0, out("eax") bits, out("edx") _, options(nomem, nostack)) };
        return Pkru::from_bits(bits);
    }
    Pkru::ALLOW_ALL
}

/// Writes PKRU; nothing where there are no keys.
pub(super) fn write(pkru: Pkru) {
    #[cfg(target_arch = "x86")]
    let _ = pkru;
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: as in `read`. The kernel accesses memory by its own pages, which have no key; not `nomem`, so that accesses of user pages stay on their side.
        unsafe { core::arch::asm!("wrpkru", in("ecx") 0, in("eax") pkru.bits(), in("edx") 0, options(nostack)) };
    }
}
