//! What must be reached: a line each.

use crate::gup::{ALL, FAST_GUP, HOT, HUGE_LEAF, LARGE_FOLIO, LARGE_HOT, LINUX_RING, LOCKED, TWO_THREADS, WALK};
use crate::lab::{self, DECIDE_ALL, FAMILY_A, ONE_SEARCH, PUBLISHED};
use crate::page_tables::{
    CONTROL, HAND, MAP_WARM, OURS, OURS_OFFLINE, PEERS, RANDOM, RANGE_MAP, RANGE_UNMAP, SEQUENTIAL, TRANSLATE,
    TRANSLATE_SHUFFLED, UNMAP,
};
use crate::protocol::{DECIDE, OURS_SYMMETRIC, RUMUR_SYMMETRIC, SPEED, SPIN, TARGETED};
use crate::report::number;
use crate::samples::{Samples, Series};
use crate::spaces::{ONE_SPACE, OWN_SPACES, TWO, TWO_FAULT, TWO_GUP, TWO_MAP, TWO_POPULATE, TWO_ZAP, TWO_ZAP_LARGE};

/// One thing that must be reached.
pub(crate) struct Target {
    workload: &'static str,
    operation: &'static str,
    contestant: &'static str,
    rule: Rule,
}

/// What the best round of a series is held against.
#[derive(Clone, Copy)]
enum Rule {
    /// At most this many times the best of that contestant, in the same workload and operation.
    TimesOf(f64, &'static str),
    /// At most this many times the best of the fastest peer, in the same workload and operation.
    TimesOfFastestPeer(f64),
    /// At least this many times the best of that contestant, in the same workload and operation.
    AtLeastTimesOf(f64, &'static str),
    /// At most this much.
    AtMost(f64),
    /// At least this much.
    AtLeast(f64),
    /// At most this much on a machine where the hand-written walk of one hot page takes 5 ns; in proportion on others.
    AtMostWhereWalkTakes5(f64),
}

use Rule::{AtLeast, AtLeastTimesOf, AtMost, AtMostWhereWalkTakes5, TimesOf, TimesOfFastestPeer};

/// Within what two values are called the same on a shared machine.
const TIE: f64 = 1.05;

const fn target(workload: &'static str, operation: &'static str, contestant: &'static str, rule: Rule) -> Target {
    Target { workload, operation, contestant, rule }
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    target(SEQUENTIAL, TRANSLATE, OURS, TimesOf(1.05, HAND)),
    target(SEQUENTIAL, TRANSLATE_SHUFFLED, OURS, TimesOf(1.05, HAND)),
    target(RANDOM, TRANSLATE, OURS, TimesOf(1.05, HAND)),
    target(RANDOM, TRANSLATE_SHUFFLED, OURS, TimesOf(1.05, HAND)),
    target(SEQUENTIAL, TRANSLATE, OURS, TimesOf(TIE, CONTROL)),
    target(RANDOM, TRANSLATE, OURS, TimesOf(TIE, CONTROL)),
    target(SEQUENTIAL, TRANSLATE, OURS, TimesOfFastestPeer(1.0)),
    target(SEQUENTIAL, TRANSLATE_SHUFFLED, OURS, TimesOfFastestPeer(1.0)),
    target(RANDOM, TRANSLATE, OURS, TimesOfFastestPeer(1.0)),
    target(RANDOM, TRANSLATE_SHUFFLED, OURS, TimesOfFastestPeer(1.0)),
    target(SEQUENTIAL, MAP_WARM, OURS, TimesOfFastestPeer(1.0)),
    target(RANDOM, MAP_WARM, OURS, TimesOfFastestPeer(1.0)),
    target(SEQUENTIAL, UNMAP, OURS, TimesOfFastestPeer(TIE)),
    target(RANDOM, UNMAP, OURS, TimesOfFastestPeer(TIE)),
    target(SEQUENTIAL, UNMAP, OURS_OFFLINE, TimesOfFastestPeer(TIE)),
    target(RANDOM, UNMAP, OURS_OFFLINE, TimesOfFastestPeer(TIE)),
    target(SEQUENTIAL, RANGE_MAP, OURS, AtMost(2.5)),
    target(SEQUENTIAL, RANGE_UNMAP, OURS_OFFLINE, AtMost(1.5)),
    target(FAST_GUP, HOT, OURS, AtMostWhereWalkTakes5(30.0)),
    target(FAST_GUP, HOT, OURS, TimesOf(1.0, LOCKED)),
    target(FAST_GUP, TWO_THREADS, OURS, AtLeast(1.9)),
    target(FAST_GUP, LARGE_HOT, OURS, AtMost(2.0)),
    target(FAST_GUP, LARGE_FOLIO, OURS, AtMost(2.0)),
    target(FAST_GUP, HUGE_LEAF, OURS, AtMost(60.0)),
    target(FAST_GUP, ALL, OURS, TimesOf(1.0, LINUX_RING)),
    target(TWO, TWO_MAP, OWN_SPACES, AtLeast(1.9)),
    target(TWO, TWO_FAULT, OWN_SPACES, AtLeast(1.9)),
    target(TWO, TWO_POPULATE, OWN_SPACES, AtLeast(1.9)),
    target(TWO, TWO_ZAP, OWN_SPACES, AtLeast(1.9)),
    target(TWO, TWO_GUP, OWN_SPACES, AtLeast(1.9)),
    target(TWO, TWO_MAP, ONE_SPACE, AtLeast(1.9)),
    target(TWO, TWO_FAULT, ONE_SPACE, AtLeast(1.9)),
    target(TWO, TWO_POPULATE, ONE_SPACE, AtLeast(1.9)),
    target(TWO, TWO_ZAP_LARGE, ONE_SPACE, AtLeast(1.9)),
    target(TWO, TWO_GUP, ONE_SPACE, AtLeast(1.9)),
    target(FAMILY_A, DECIDE_ALL, OURS, AtMost(10.0)),
    target(PUBLISHED, DECIDE_ALL, OURS, AtMost(5.0)),
    target(ONE_SEARCH, lab::TWO_THREADS, OURS, AtLeast(1.8)),
    target(TARGETED[0], SPEED, OURS, AtLeastTimesOf(2.0, SPIN)),
    target(TARGETED[0], DECIDE, OURS_SYMMETRIC, TimesOf(1.0 / 20.0, SPIN)),
    target(TARGETED[0], DECIDE, OURS_SYMMETRIC, TimesOf(1.0 / 3.0, RUMUR_SYMMETRIC)),
    target(TARGETED[1], SPEED, OURS, AtLeastTimesOf(2.0, SPIN)),
    target(TARGETED[1], DECIDE, OURS_SYMMETRIC, TimesOf(1.0 / 20.0, SPIN)),
    target(TARGETED[1], DECIDE, OURS_SYMMETRIC, TimesOf(1.0 / 3.0, RUMUR_SYMMETRIC)),
    target(TARGETED[2], SPEED, OURS, AtLeastTimesOf(2.0, SPIN)),
    target(TARGETED[2], DECIDE, OURS_SYMMETRIC, TimesOf(1.0 / 20.0, SPIN)),
    target(TARGETED[2], DECIDE, OURS_SYMMETRIC, TimesOf(1.0 / 3.0, RUMUR_SYMMETRIC)),
];

/// How a target stands.
pub(crate) struct Standing {
    /// The best round.
    pub(crate) value: f64,
    /// What it may be.
    pub(crate) limit: f64,
    /// Where the limit comes from.
    pub(crate) reason: String,
    pub(crate) is_met: bool,
}

impl Target {
    pub(crate) fn name(&self) -> String {
        format!("{}: {}, {}", self.contestant, self.operation, self.workload)
    }

    /// `None` if what it needs was not measured.
    pub(crate) fn standing(&self, samples: &Samples) -> Option<Standing> {
        let best = |contestant| samples.get(self.workload, self.operation, contestant).map(Series::best);
        let value = best(self.contestant)?;
        let (limit, reason) = match self.rule {
            TimesOf(times, other) | AtLeastTimesOf(times, other) => {
                (times * best(other)?, format!("{} x {other}", number(times)))
            }
            TimesOfFastestPeer(times) => {
                let measured = PEERS.into_iter().filter_map(|peer| Some((best(peer)?, peer)));
                let (fastest, peer) = measured.min_by(|one, other| one.0.total_cmp(&other.0))?;
                (times * fastest, if times == 1.0 { peer.to_owned() } else { format!("{times} x {peer}") })
            }
            AtMost(limit) => (limit, String::from("at most")),
            AtLeast(limit) => (limit, String::from("at least")),
            AtMostWhereWalkTakes5(limit) => {
                let walk = samples.get(FAST_GUP, WALK, HAND)?.best();
                (limit * walk / 5.0, format!("{limit} ns where the walk takes 5, here {walk:.1}"))
            }
        };
        let is_met = match self.rule {
            AtLeast(_) | AtLeastTimesOf(..) => value >= limit,
            _ => value <= limit,
        };
        Some(Standing { value, limit, reason, is_met })
    }
}
