//! A server's subscriptions, seen and steered from outside while it runs.

mod letters;
mod notes;
mod status;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kratos::{Action, Answer, Live, Pulse, Refusal, SubscriptionStatus};
use serde_json::Value;

use self::letters::AtWork;
pub(crate) use self::{
    letters::{Letters, Reader},
    notes::Notes,
    status::{Control, Watched, id},
};
use super::heart::Heart;
use crate::subscription::CONCURRENCY_MAX;

/// The subscriptions of a server, live: how each is, and a hand on it. Clones are the same.
///
/// From [`Server::controls`](crate::Server::controls). There are none before the server serves.
/// The admin server looks through the same.
///
/// ```
/// use kratos_broker::{Bytes, Server, memory};
///
/// async fn save(_: Bytes) {}
///
/// let server: Server<_> = Server::new(memory::Broker::new()).subscribe("orders", "billing", save);
/// let controls = server.controls();
/// // kratos::App::new().server(server).run().await, and meanwhile, anywhere:
/// if controls.pause("orders", "billing") {
///     for subscription in controls.subscriptions() {
///         println!("{}: {:?}", subscription.topic, subscription.state);
///     }
/// }
/// # assert!(controls.subscriptions().is_empty(), "it does not serve yet");
/// ```
#[derive(Clone, Default)]
pub struct Controls {
    subscriptions: Arc<Mutex<Vec<Control>>>,
    heart: Arc<Heart>,
    /// Readers of dead letters.
    at_work: AtWork,
}

// === impl Controls ===

impl Controls {
    /// How every subscription is, in the order of groups and topics.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        self.lock().iter_mut().map(Control::status).collect()
    }

    /// Pauses the subscriptions of a topic in a group, whatever their tags, until
    /// [`resume`](Controls::resume): no handler starts, and no more is asked for. What runs goes on.
    /// Answers whether there is such a subscription.
    ///
    /// What waits here keeps its lease up to [`max_hold`](crate::Subscription::max_hold), then it is
    /// another member's. A poll that is under way may still bring some, and what it brings late is
    /// not extended: for such messages too a pause that is longer costs an attempt of the broker's
    /// count.
    ///
    /// A stop of the server takes no notice, but for messages that it must finish.
    pub fn pause(&self, topic: &str, group: &str) -> bool {
        self.each(topic, group, |control| control.hold(true))
    }

    /// Lets a [paused](Controls::pause) subscription go on. Answers whether there is such a
    /// subscription.
    pub fn resume(&self, topic: &str, group: &str) -> bool {
        self.each(topic, group, |control| control.hold(false))
    }

    /// Sets how many messages, or batches, the subscriptions of a topic in a group handle at once,
    /// each of them: 1 to 4,096. Handlers that are too many end first what they have begun. Answers
    /// whether there is such a subscription that runs.
    pub fn set_concurrency(&self, topic: &str, group: &str, lanes: usize) -> bool {
        let lanes = lanes.clamp(1, CONCURRENCY_MAX);
        let mut done = false;
        self.each(topic, group, |control| done |= control.resize(lanes));
        done
    }

    pub(crate) fn add(&self, mut control: Control) {
        let mut all = self.lock();
        let taken = |id: &str| all.iter().any(|other| other.id() == id);
        control.make_unique(taken);
        all.push(control);
    }

    /// The server has stopped: nobody looks into its tables any more, from now on.
    pub(crate) fn end(&self) {
        self.lock().iter_mut().for_each(Control::end);
        self.heart.stop();
    }

    pub(crate) fn at_work(&self) -> &AtWork {
        &self.at_work
    }

    pub(crate) fn heart(&self) -> &Heart {
        &self.heart
    }

    /// Looks at every subscription; answers which of them do nothing though they could.
    pub(crate) fn look(&self) -> Option<String> {
        let mut all = self.lock();
        let stuck: Vec<_> = all.iter_mut().filter_map(Control::look).collect();
        (!stuck.is_empty()).then(|| stuck.join("; "))
    }

    /// Asks the dead letters of a subscription that runs.
    fn letters(&self, id: &str, ask: impl FnOnce(&Letters) -> Answer<Value>) -> Answer<Value> {
        let mut all = self.lock();
        let refusal = match all.iter_mut().find(|control| control.id() == id) {
            None => Refusal::unknown(format!("there is no subscription {id}")),
            Some(control) => {
                if !control.is_over() {
                    return ask(control.letters());
                }
                Refusal::conflict(format!("subscription {id} is stopping"))
            }
        };
        Box::pin(std::future::ready(Err(refusal)))
    }

    fn each(&self, topic: &str, group: &str, mut act: impl FnMut(&mut Control)) -> bool {
        let mut found = false;
        for control in self.lock().iter_mut().filter(|c| c.is_of(topic, group)) {
            found = true;
            act(control);
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Control>> {
        // Nothing under this lock panics half way; a poisoned lock is as good as any.
        self.subscriptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live for Controls {
    fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        Self::subscriptions(self)
    }

    fn act(&self, id: &str, action: Action) -> Result<(), Refusal> {
        let mut all = self.lock();
        let Some(control) = all.iter_mut().find(|control| control.id() == id) else {
            return Err(Refusal::unknown(format!("there is no subscription {id}")));
        };
        if control.is_over() {
            return Err(Refusal::conflict(format!("subscription {id} is stopping")));
        }
        match action {
            Action::Pause => control.hold(true),
            Action::Resume => control.hold(false),
            Action::Concurrency(lanes @ 1..=CONCURRENCY_MAX) => {
                control.resize(lanes);
            }
            Action::Concurrency(_) => {
                return Err(Refusal::invalid(format!(
                    "concurrency is 1 to {CONCURRENCY_MAX}"
                )));
            }
            _ => {
                return Err(Refusal::unsupported(format!(
                    "subscription {id} cannot do that"
                )));
            }
        }
        Ok(())
    }

    fn pulse(&self) -> Pulse {
        self.heart.pulse()
    }

    fn dead_letters(&self, id: &str, max: usize) -> Answer<Value> {
        self.letters(id, |letters| letters.list(max))
    }

    fn replay(&self, id: &str, max: usize) -> Answer<Value> {
        self.letters(id, |letters| letters.replay(max))
    }
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.subscriptions()).finish()
    }
}
