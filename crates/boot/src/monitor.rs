//! QEMU's monitor: registers and page tables of a kernel that says nothing any more.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::console::Fault;
use crate::image::Mode;

const PROMPT: &[u8] = b"(qemu) ";
const PATIENCE: Duration = Duration::from_secs(5);

/// Says where a kernel is that does not go on, or why that cannot be said.
///
/// # Errors
/// QEMU does not answer.
pub fn ask(socket: &Path, mode: Mode, why: &str) -> io::Result<Fault> {
    let mut monitor = Monitor::open(socket)?;
    // Otherwise registers and memory are of different moments.
    monitor.command("stop")?;
    let registers = registers_in(&monitor.command("info registers")?);
    let mut walk = Vec::new();
    let number = |name: &str| registers.get(name).and_then(|value| u64::from_str_radix(value, 16).ok());
    let counter = number("RIP").or_else(|| number("EIP"));
    let is_paging = number("CR0").is_some_and(|bits| bits & PAGING != 0);
    if let (true, Some(root), Some(address)) = (is_paging, number("CR3"), counter) {
        for level in levels(mode, root, address) {
            let table = walk.last().map_or(level.root, |entry: &(&str, u64)| entry.1 & ADDRESS);
            let place = table + level.index * 8;
            let Some(entry) = word_in(&monitor.command(&format!("xp /1gx {place:#x}"))?) else { break };
            walk.push((level.name, entry));
            let is_leaf = entry & 1 == 0 || level.may_be_leaf && entry & 1 << 7 != 0;
            if is_leaf {
                break;
            }
        }
    }
    let registers = registers.into_iter().map(|(name, value)| (name, format!("0x{value}"))).collect();
    let walk = walk.into_iter().map(|(level, entry)| format!("{level} {entry:#x}")).collect();
    Ok(Fault { message: why.to_owned(), registers, walk })
}

/// Whether the machine has reset itself or switched itself off, which stops it for ever. One that cannot be asked yet, or any more, has not.
pub fn has_reset(socket: &Path) -> bool {
    let said = Monitor::open(socket).and_then(|mut monitor| monitor.command("info status"));
    said.is_ok_and(|said| said.contains("(shutdown)"))
}

/// CR0.PG: without it there is nothing to walk.
const PAGING: u64 = 1 << 31;
/// Where entries hold an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

struct Step {
    name: &'static str,
    root: u64,
    index: u64,
    may_be_leaf: bool,
}

/// The entries that a walk reads, and where the first of them is.
fn levels(mode: Mode, root: u64, address: u64) -> Vec<Step> {
    let step = |name, shift: u32, may_be_leaf| {
        let bits = if mode == Mode::Pae && shift == 30 { 3 } else { 0x1ff };
        let root = if mode == Mode::Pae { root & 0xffff_ffe0 } else { root & ADDRESS };
        Step { name, root, index: address >> shift & bits, may_be_leaf }
    };
    let lower = [step("pud", 30, mode != Mode::Pae), step("pmd", 21, true), step("pte", 12, true)];
    let upper = match mode {
        Mode::Pae => Vec::new(),
        Mode::X86_64 => vec![step("p4d", 39, false)],
        Mode::La57 => vec![step("pgd", 48, false), step("p4d", 39, false)],
    };
    upper.into_iter().chain(lower).collect()
}

/// `EAX=00000001 EBX=...` on many lines, with other things between.
fn registers_in(said: &str) -> BTreeMap<String, String> {
    let mut registers = BTreeMap::new();
    // `CR0=80010033 CR2=0 ...`; and `RAX=`, `R8 =`.
    let said = said.replace(" =", "=");
    for word in said.split_whitespace() {
        if let Some((name, value)) = word.split_once('=')
            && !value.is_empty()
            && value.chars().all(|letter| letter.is_ascii_hexdigit())
            && name.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit())
        {
            registers.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    registers
}

/// `0000000000101000: 0x0000000000102003`.
fn word_in(said: &str) -> Option<u64> {
    let value = said.lines().find_map(|line| line.split_once(": 0x"))?.1;
    u64::from_str_radix(value.trim(), 16).ok()
}

struct Monitor(UnixStream);

impl Monitor {
    fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut monitor = Self(stream);
        monitor.answer()?;
        Ok(monitor)
    }

    fn command(&mut self, command: &str) -> io::Result<String> {
        writeln!(self.0, "{command}")?;
        self.answer()
    }

    /// Everything up to the next prompt.
    fn answer(&mut self) -> io::Result<String> {
        let mut said = Vec::new();
        let mut piece = [0; 4096];
        while !said.ends_with(PROMPT) {
            match self.0.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => said.extend_from_slice(&piece[..count]),
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_found_in_what_qemu_prints() {
        let said = "CPU#0\r\nRAX=0000000000000011 RBX=ffffffff80000000\r\nR8 =0000000000000001 R9 =0000000000000002\r\n\
                    RIP=ffffffff80101234 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\nES =0010 0000000000000000 ffffffff 00c09300 DPL=0 DS\r\n\
                    CR0=80010033 CR2=0000000000000000 CR3=0000000000101000 CR4=00000620\r\n";
        let registers = registers_in(said);
        for (name, value) in [("RAX", "0000000000000011"), ("R8", "0000000000000001"), ("CR3", "0000000000101000")] {
            assert_eq!(registers.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn walks_begin_at_the_root_of_the_mode() {
        let names = |mode| levels(mode, 0x10_1020, 0xc012_3456).iter().map(|step| step.name).collect::<Vec<_>>();
        assert_eq!(names(Mode::Pae), ["pud", "pmd", "pte"]);
        assert_eq!(names(Mode::La57), ["pgd", "p4d", "pud", "pmd", "pte"]);
        let pae = levels(Mode::Pae, 0x10_1020, 0xc012_3456);
        assert_eq!((pae[0].root, pae[0].index, pae[1].index, pae[2].index), (0x10_1020, 3, 0, 0x123));
    }

    #[test]
    fn words_are_found_in_what_qemu_prints() {
        assert_eq!(word_in("xp /1gx 0x101000\r\n0000000000101000: 0x0000000000102003\r\n"), Some(0x10_2003));
        assert_eq!(word_in("Cannot access memory"), None);
    }
}
