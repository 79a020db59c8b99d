//! What the bits of a page-table entry say, in words, for traces.

/// What the low half of an entry says, in words.
pub(crate) fn low_words(low: u64) -> String {
    if low == 0 {
        return "none".to_owned();
    }
    let mut words = vec![format!("..{:05x}", low >> 12)];
    words.extend(flag_names(low));
    words.join(" ")
}

/// What the high half of an entry says, in words.
pub(crate) fn high_words(high: u64) -> String {
    if high == 0 {
        return "0..".to_owned();
    }
    let entry = high << 32;
    let mut words = vec![format!("{:x}..", (entry & 0x000f_ffff_0000_0000) >> 32)];
    words.extend(flag_names(entry));
    words.join(" ")
}

/// The names of the flags that are set, and the protection key of a whole and present entry if it is another than 0.
pub(crate) fn flag_names(entry: u64) -> impl Iterator<Item = String> {
    const FLAGS: [(u32, &str); 8] =
        [(0, "P"), (1, "W"), (2, "U"), (5, "A"), (6, "D"), (9, "special"), (58, "special"), (63, "NX")];
    let key = entry >> 59 & 0xf;
    let key = (entry & 1 != 0 && key != 0).then(|| format!("key={key}"));
    FLAGS.into_iter().filter(move |(bit, _)| entry >> bit & 1 != 0).map(|(_, name)| name.to_owned()).chain(key)
}
