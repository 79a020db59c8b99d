//! Which CPUs there are, by ACPI's MADT.

use super::paging::{at_physical, reach};

/// A table's bytes, if the kernel's window reaches them.
fn bytes(address: u64, length: u64) -> Option<&'static [u8]> {
    if address == 0 || address.checked_add(length)? > reach() {
        return None;
    }
    // SAFETY: all memory below `reach` is mapped, and nobody writes the firmware's tables.
    Some(unsafe { core::slice::from_raw_parts(at_physical(address), length as usize) })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn table(address: u64) -> Option<&'static [u8]> {
    let length = word(bytes(address, 8)?, 4)?;
    bytes(address, u64::from(length))
}

fn root_pointer(given: u64) -> Option<&'static [u8]> {
    if let Some(found) = bytes(given, 20).filter(|found| found.starts_with(b"RSD PTR ")) {
        return Some(found);
    }
    (0xe_0000..0x10_0000)
        .step_by(16)
        .find_map(|address| bytes(address, 20).filter(|found| found.starts_with(b"RSD PTR ")))
}

/// Calls `each` with the local APIC number of every CPU that can be used. `None` if there are no tables that can be read.
pub(super) fn for_each_cpu(given: u64, mut each: impl FnMut(u8)) -> Option<()> {
    let rsdt = table(u64::from(word(root_pointer(given)?, 16)?))?;
    let madt = (36..rsdt.len())
        .step_by(4)
        .find_map(|at| table(u64::from(word(rsdt, at)?)).filter(|table| table.starts_with(b"APIC")))?;
    let mut at = 44;
    while let (Some(&kind), Some(&length)) = (madt.get(at), madt.get(at + 1)) {
        if kind == 0 && word(madt, at + 4)? & 1 != 0 {
            each(*madt.get(at + 3)?);
        }
        at += usize::from(length.max(2));
    }
    Some(())
}
