//! When a subscription stops trying because everything fails.

use std::time::Duration;

/// Most outcomes that [`KillSwitch::ratio`] looks back on.
const WINDOW_MAX: u32 = 10_000;

/// Pauses a subscription whose handlers fail one after another: what they depend on is away, and
/// trying the whole backlog would only use up the attempts of every message.
///
/// The switch opens after a number of failures in a row, or when too large a part of the last
/// outcomes were failures. While it is open nothing starts, and no more is asked for; what is here
/// keeps its lease, up to [`max_hold`](crate::Subscription::max_hold). After the pause one message
/// is tried, another one each time where there are several. If it succeeds all go on; if it fails
/// the switch pauses again, twice as long, up to [`max_pause`](KillSwitch::max_pause). One that takes
/// longer than a minute is not waited for: another is tried, and whichever succeeds counts.
///
/// What an outage costs in the broker's count: one attempt for each message that a poll under way
/// has brought and that is not here yet, per pause, and one for each that waits here longer than
/// `max_hold`.
///
/// * What counts as failure: errors to be retried, panics, time limits. Poison does not.
/// * While it is open a failed attempt does not count: the message stays here, keeps its place in
///   its key's order, and is never dead-lettered for it.
/// * A message that is retried in this process and uses up its attempts while nothing else
///   succeeds opens the switch rather than being dead-lettered: with order kept, one outage would
///   otherwise cost message after message. An error that is the message's own fault should
///   therefore be [`Poison`](crate::Disposition::Poison): a switch cannot tell.
/// * An open switch is seen in the server's health (degraded, or unready with
///   [`unready_when_open`](KillSwitch::unready_when_open)), in
///   [`Stats`](crate::Stats), [`Controls`](crate::Controls) and the log.
/// * Subscriptions of one topic and group, with other tags, go on until their common room is full of
///   messages of the paused one: a broker has one stream for a topic and a group, so those come in
///   with the others, and wait here. From then on none receives anything; health and log say so.
///   Give what must not wait for another a group of its own.
///
/// ```
/// use std::time::Duration;
/// use kratos_broker::{KillSwitch, Subscription};
///
/// let subscription = Subscription::new("orders", "billing").kill_switch(
///     KillSwitch::new()
///         .failures_in_a_row(20)
///         .ratio(0.5, 100)
///         .pause(Duration::from_secs(5)),
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct KillSwitch {
    pub(crate) in_a_row: u32,
    /// The part that must fail, of so many outcomes.
    pub(crate) ratio: Option<(f64, usize)>,
    pub(crate) pause: Duration,
    pub(crate) max_pause: Duration,
    pub(crate) unready: bool,
}

impl KillSwitch {
    /// Opens after 10 failures in a row; pauses 5 s, doubled up to a minute.
    pub const fn new() -> Self {
        Self {
            in_a_row: 10,
            ratio: None,
            pause: Duration::from_secs(5),
            max_pause: Duration::from_secs(60),
            unready: false,
        }
    }

    /// Sets after how many failures in a row, over all lanes, it opens; at least 1.
    pub const fn failures_in_a_row(mut self, failures: u32) -> Self {
        self.in_a_row = if failures == 0 { 1 } else { failures };
        self
    }

    /// Also opens when at least `fraction` (0 to 1) of the last `outcomes` (1 to 10,000) were
    /// failures; not before there were so many.
    pub fn ratio(mut self, fraction: f64, outcomes: u32) -> Self {
        let outcomes = outcomes.clamp(1, WINDOW_MAX) as usize;
        self.ratio = Some((fraction.clamp(0.0, 1.0), outcomes));
        self
    }

    /// Sets how long it pauses before it tries one message: 5 s by default. Raises
    /// [`max_pause`](KillSwitch::max_pause) to it if need be.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self.max_pause = self.max_pause.max(pause);
        self
    }

    /// Sets up to how long the pause grows while the tried messages fail: a minute by default. It
    /// bounds how long after a recovery work goes on.
    pub fn max_pause(mut self, pause: Duration) -> Self {
        self.max_pause = pause.max(self.pause);
        self
    }

    /// Makes the App unready while it is open, not only degraded.
    pub const fn unready_when_open(mut self) -> Self {
        self.unready = true;
        self
    }
}

impl Default for KillSwitch {
    fn default() -> Self {
        Self::new()
    }
}
