//! Who gives how much to whom: all members come to the same from what all have.

/// Nobody gives more at once.
const MOST: u64 = 1 << 11;

/// To whom `mine` gives, and how much, where each member has so much to do.
pub(crate) fn gifts(pending: &[u64], mine: usize) -> Vec<(usize, usize)> {
    let members = pending.len() as u64;
    let fair = pending.iter().sum::<u64>().div_ceil(members);
    let wants = |member: usize| (pending[member] * 2 < fair).then(|| fair - pending[member]);
    let wanted: u64 = (0..pending.len()).filter_map(wants).sum();
    let mut surplus = pending[mine].saturating_sub(fair);
    let mut gifts = Vec::new();
    if wanted == 0 {
        return gifts;
    }
    let to_all = surplus;
    // Each giver begins with another member: otherwise a few small gifts would all go to the first.
    for member in (mine..mine + pending.len()).map(|member| member % pending.len()) {
        let Some(want) = wants(member) else { continue };
        let gift = (to_all * want).div_ceil(wanted).min(surplus).min(MOST);
        surplus -= gift;
        if gift != 0 {
            gifts.push((member, gift as usize));
        }
    }
    gifts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What everybody has after all gave.
    fn after(pending: &[u64]) -> Vec<u64> {
        let mut after = pending.to_vec();
        for mine in 0..pending.len() {
            for (member, gift) in gifts(pending, mine) {
                after[mine] -= gift as u64;
                after[member] += gift as u64;
            }
        }
        after
    }

    #[test]
    fn who_has_nothing_gets_something() {
        for pending in [&[2, 0, 0][..], &[0, 3, 0], &[90, 0, 0], &[40, 50, 0, 1], &[1000, 0]] {
            let after = after(pending);
            assert_eq!(after.iter().sum::<u64>(), pending.iter().sum::<u64>());
            assert!(after.iter().max() < pending.iter().max(), "{pending:?} became {after:?}");
        }
        assert_eq!(after(&[90, 0, 0]), [30, 30, 30]);
    }

    #[test]
    fn nobody_gives_where_all_have_enough() {
        for pending in [&[0, 0, 0][..], &[1, 0, 0], &[10, 8, 7], &[100, 60]] {
            assert_eq!(after(pending), pending);
        }
    }
}
