//! Faults that tests ask for: each is used up as it strikes.

use std::collections::VecDeque;

use rocketmq_proto::v2::Code;

/// Faults still to come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) sends: VecDeque<Code>,
    pub(crate) sends_after_storing: VecDeque<Code>,
    pub(crate) ack_requests: VecDeque<Code>,
    pub(crate) dropped_acks: usize,
    pub(crate) repeated_checks: usize,
}

impl Faults {
    pub(crate) fn fail_send(&mut self) -> Option<Code> {
        self.sends.pop_front()
    }

    pub(crate) fn fail_send_after_storing(&mut self) -> Option<Code> {
        self.sends_after_storing.pop_front()
    }

    pub(crate) fn fail_ack(&mut self) -> Option<Code> {
        self.ack_requests.pop_front()
    }

    /// How often the next check of a transaction is repeated.
    pub(crate) fn repeat_check(&mut self) -> usize {
        let repeat = self.repeated_checks.min(1);
        self.repeated_checks -= repeat;
        repeat
    }

    pub(crate) fn drop_ack(&mut self) -> bool {
        let drop = self.dropped_acks > 0;
        self.dropped_acks = self.dropped_acks.saturating_sub(1);
        drop
    }
}
