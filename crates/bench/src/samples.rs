//! What was measured.

use std::collections::HashMap;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What is measured: of whom, doing what, where.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// The workload.
    pub(crate) workload: &'static str,
    /// The operation.
    pub(crate) operation: &'static str,
    /// Who.
    pub(crate) contestant: &'static str,
}

/// The unit of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// Less is better.
    Nanoseconds,
    /// Less is better.
    Seconds,
    /// More is better.
    PerSecond,
    /// More is better.
    Times,
}

impl Unit {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Seconds => "s",
            Self::PerSecond => "/s",
            Self::Times => "x",
        }
    }
}

/// The values of one key, one of each round.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) unit: Unit,
    values: Vec<f64>,
}

impl Series {
    /// The best round: on a shared machine, the one that was disturbed least.
    pub(crate) fn best(&self) -> f64 {
        let values = self.values.iter().copied();
        match self.unit {
            Unit::Nanoseconds | Unit::Seconds => values.fold(f64::INFINITY, f64::min),
            Unit::PerSecond | Unit::Times => values.fold(0.0, f64::max),
        }
    }

    /// The middle round.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    pub(crate) fn rounds(&self) -> usize {
        self.values.len()
    }
}

/// All series, in the order in which they began.
#[derive(Default)]
pub(crate) struct Samples {
    order: Vec<Key>,
    series: HashMap<Key, Series>,
}

impl Samples {
    /// Adds the value of one round.
    pub(crate) fn add(&mut self, key: Key, unit: Unit, value: f64) {
        let order = &mut self.order;
        self.series
            .entry(key)
            .or_insert_with_key(|key| {
                order.push(*key);
                Series { unit, values: Vec::new() }
            })
            .values
            .push(value);
    }

    /// The series of a key, if it was measured.
    pub(crate) fn get(
        &self,
        workload: &'static str,
        operation: &'static str,
        contestant: &'static str,
    ) -> Option<&Series> {
        self.series.get(&Key { workload, operation, contestant })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Series)> {
        self.order.iter().filter_map(|key| self.series.get_key_value(key))
    }
}

/// How long this thread has run. Unlike a clock on the wall it stands still while others have the core.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread has not run for a negative time")
}

/// Measures the operations of one contestant in one round.
pub(crate) struct Stopwatch<'s> {
    samples: &'s mut Samples,
    workload: &'static str,
    contestant: &'static str,
}

impl<'s> Stopwatch<'s> {
    pub(crate) fn new(samples: &'s mut Samples, workload: &'static str, contestant: &'static str) -> Self {
        Self { samples, workload, contestant }
    }

    /// Times `count` operations done by `work`; the result is per operation.
    pub(crate) fn time<R>(&mut self, operation: &'static str, count: u64, work: impl FnOnce() -> R) -> R {
        let start = thread_time();
        let result = std::hint::black_box(work());
        self.add(operation, count, thread_time() - start);
        result
    }

    /// Adds a time measured elsewhere.
    pub(crate) fn add(&mut self, operation: &'static str, count: u64, elapsed: Duration) {
        let key = Key { workload: self.workload, operation, contestant: self.contestant };
        self.samples.add(key, Unit::Nanoseconds, elapsed.as_nanos() as f64 / count as f64);
    }
}
