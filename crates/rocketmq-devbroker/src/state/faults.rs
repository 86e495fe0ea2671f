//! Faults that tests ask for: each is used up as it strikes, or lasts until it is cleared.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use rocketmq_proto::v2::Code;

use crate::state::refusal::Refusal;

/// A method of the broker's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are those of the protocol")]
pub enum Rpc {
    QueryRoute,
    Heartbeat,
    SendMessage,
    QueryAssignment,
    ReceiveMessage,
    AckMessage,
    ForwardMessageToDeadLetterQueue,
    EndTransaction,
    Telemetry,
    NotifyClientTermination,
    ChangeInvisibleDuration,
    RecallMessage,
    SyncLiteSubscription,
}

impl Rpc {
    /// The method that the last part of a request's path names.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "QueryRoute" => Self::QueryRoute,
            "Heartbeat" => Self::Heartbeat,
            "SendMessage" => Self::SendMessage,
            "QueryAssignment" => Self::QueryAssignment,
            "ReceiveMessage" => Self::ReceiveMessage,
            "AckMessage" => Self::AckMessage,
            "ForwardMessageToDeadLetterQueue" => Self::ForwardMessageToDeadLetterQueue,
            "EndTransaction" => Self::EndTransaction,
            "Telemetry" => Self::Telemetry,
            "NotifyClientTermination" => Self::NotifyClientTermination,
            "ChangeInvisibleDuration" => Self::ChangeInvisibleDuration,
            "RecallMessage" => Self::RecallMessage,
            "SyncLiteSubscription" => Self::SyncLiteSubscription,
            _ => return None,
        })
    }
}

/// What happens to one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strike {
    /// The call is answered with this, and nothing is done.
    pub(crate) refusal: Option<Refusal>,
    /// The answer comes so much later.
    pub(crate) delay: Duration,
    /// The answer never comes.
    pub(crate) lost: bool,
}

/// Faults still to come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) refused: HashMap<Rpc, VecDeque<Code>>,
    pub(crate) lost: HashMap<Rpc, usize>,
    pub(crate) delays: HashMap<Rpc, Duration>,
    pub(crate) sends_after_storing: VecDeque<Code>,
    pub(crate) dropped_acks: usize,
    pub(crate) repeated_checks: usize,
    /// After how many messages each of the next receives breaks.
    pub(crate) broken_receives: VecDeque<usize>,
    pub(crate) duplicated: usize,
    pub(crate) reversed_receives: usize,
    pub(crate) entry_per_message: bool,
    pub(crate) status_last: bool,
}

impl Faults {
    /// What happens to a call that comes in now.
    pub(crate) fn strike(&mut self, rpc: Rpc) -> Strike {
        let code = self.refused.get_mut(&rpc).and_then(VecDeque::pop_front);
        let refusal = code.map(|code| Refusal::new(code, "injected fault: nothing is done"));
        let lost = self.lost.get_mut(&rpc).is_some_and(spend);
        let delay = self.delays.get(&rpc).copied().unwrap_or_default();
        Strike {
            refusal,
            delay,
            lost,
        }
    }

    pub(crate) fn fail_send_after_storing(&mut self) -> Option<Code> {
        self.sends_after_storing.pop_front()
    }

    /// How often the next check of a transaction is repeated.
    pub(crate) fn repeat_check(&mut self) -> usize {
        usize::from(spend(&mut self.repeated_checks))
    }

    pub(crate) fn drop_ack(&mut self) -> bool {
        spend(&mut self.dropped_acks)
    }

    /// Whether the next delivery is made twice.
    pub(crate) fn duplicate(&mut self) -> bool {
        spend(&mut self.duplicated)
    }

    /// Whether a receive of several messages hands them out last first.
    pub(crate) fn reverse(&mut self) -> bool {
        spend(&mut self.reversed_receives)
    }
}

/// Uses up one of what is left, if any is.
fn spend(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}
