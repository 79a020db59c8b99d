//! What must be reached: a line each.

use crate::page_tables::{
    CONTROL, HAND, MAP_WARM, OURS, OURS_OFFLINE, PEERS, RANDOM, RANGE_MAP, RANGE_UNMAP, SEQUENTIAL, TRANSLATE,
    TRANSLATE_SHUFFLED, UNMAP,
};
use crate::samples::{Samples, Series};

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
    /// At most this much.
    AtMost(f64),
}

use Rule::{AtMost, TimesOf, TimesOfFastestPeer};

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
            TimesOf(times, other) => (times * best(other)?, format!("{times} x {other}")),
            TimesOfFastestPeer(times) => {
                let measured = PEERS.into_iter().filter_map(|peer| Some((best(peer)?, peer)));
                let (fastest, peer) = measured.min_by(|one, other| one.0.total_cmp(&other.0))?;
                (times * fastest, if times == 1.0 { peer.to_owned() } else { format!("{times} x {peer}") })
            }
            AtMost(limit) => (limit, String::from("a constant")),
        };
        Some(Standing { value, limit, reason, is_met: value <= limit })
    }
}
