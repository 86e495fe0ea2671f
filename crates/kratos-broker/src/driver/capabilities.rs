//! What a broker can do.

use super::{Filter, GroupSpec};
use crate::{Error, Message, Result};

/// What a broker can do, declared by its driver.
///
/// ```
/// use kratos_broker::driver::Capabilities;
///
/// let capabilities = Capabilities::none().dead_letter(true).tag_filter(true);
/// assert!(capabilities.can_tag_filter() && !capabilities.can_delay());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Capabilities {
    ordering: bool,
    delay: bool,
    priority: bool,
    dead_letter: bool,
    tag_filter: bool,
    sql_filter: bool,
    transactions: bool,
    recall: bool,
    broadcast: bool,
    hand_back_spends_attempt: bool,
}

macro_rules! capability {
    ($($(#[$doc:meta])* $name:ident, $can:ident;)*) => {
        $(
            $(#[$doc])*
            pub const fn $name(mut self, can: bool) -> Self {
                self.$name = can;
                self
            }

            #[doc = concat!("What [`", stringify!($name), "`](Self::", stringify!($name), ") says.")]
            #[must_use]
            pub const fn $can(&self) -> bool {
                self.$name
            }
        )*
    };
}

impl Capabilities {
    /// Nothing but to publish, to receive and to settle.
    pub const fn none() -> Self {
        Self {
            ordering: false,
            delay: false,
            priority: false,
            dead_letter: false,
            tag_filter: false,
            sql_filter: false,
            transactions: false,
            recall: false,
            broadcast: false,
            hand_back_spends_attempt: false,
        }
    }

    capability! {
        /// Messages of one message group are delivered in the order they were sent.
        ordering, can_order;
        /// A message can be held back until a time.
        delay, can_delay;
        /// Messages of a higher priority come first.
        priority, can_prioritise;
        /// The broker itself moves a message to a dead-letter queue, once, when told to.
        dead_letter, can_dead_letter;
        /// The broker filters by tag.
        tag_filter, can_tag_filter;
        /// The broker filters by an SQL expression over headers.
        sql_filter, can_sql_filter;
        /// A message can be sent as part of a transaction.
        transactions, can_transact;
        /// A delayed message can be called back before it is delivered.
        recall, can_recall;
        /// Every instance of a service can get every message.
        broadcast, can_broadcast;
        /// A message that is handed back unstarted has spent one of its attempts. The engine then
        /// starts a message on its last attempt rather than hand it back.
        hand_back_spends_attempt, counts_hand_back;
    }

    /// Refuses a message that asks for what is not among these. A
    /// [`Publisher`](crate::Publisher) does so before the driver sees the message; a driver does, for
    /// those who use it without one. `system` is the driver's [`SYSTEM`](super::Driver::SYSTEM).
    ///
    /// # Errors
    ///
    /// [Unsupported](Error::is_unsupported), with what the message asks for.
    pub fn check_message(&self, system: &str, message: &Message) -> Result<()> {
        let asked = [
            (
                message.group_ref().is_some() && !self.ordering,
                "keep messages of a group in order",
            ),
            (message.is_delayed() && !self.delay, "delay messages"),
            (
                message.has_priority() && !self.priority,
                "prioritise messages",
            ),
        ];
        let topic = message.topic();
        refuse(asked, |what| {
            format!("{system} cannot {what}: message to topic {topic} refused")
        })
    }

    /// Refuses a group that asks for what is not among these, as
    /// [`check_message`](Self::check_message) does.
    ///
    /// # Errors
    ///
    /// [Unsupported](Error::is_unsupported), with what the group asks for.
    pub fn check_group(&self, system: &str, group: &GroupSpec) -> Result<()> {
        let filters = |is: fn(&Filter) -> bool| group.topics.iter().any(|spec| is(&spec.filter));
        let asked = [
            (
                filters(|filter| matches!(filter, Filter::Tags(_))) && !self.tag_filter,
                "filter by tag",
            ),
            (
                filters(|filter| matches!(filter, Filter::Sql(_))) && !self.sql_filter,
                "filter by sql",
            ),
            (group.fifo && !self.ordering, "keep messages in order"),
            (
                group.broadcast && !self.broadcast,
                "give every instance every message (broadcast)",
            ),
        ];
        let group = &group.group;
        refuse(asked, |what| {
            format!("{system} cannot {what}: group {group} refused")
        })
    }
}

/// The first of what is asked for and missing.
fn refuse<const N: usize>(asked: [(bool, &str); N], say: impl Fn(&str) -> String) -> Result<()> {
    match asked.iter().find(|(missing, _)| *missing) {
        Some((_, what)) => Err(Error::unsupported(say(what))),
        None => Ok(()),
    }
}
