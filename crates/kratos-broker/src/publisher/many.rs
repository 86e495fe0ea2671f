//! Many messages at once.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use super::Publisher;
use crate::{Error, ErrorKind, Message, Receipt, Result, driver::Driver};

/// Most messages of one call that are under way at the same time.
const AT_ONCE_MAX: usize = 1_024;

impl<D: Driver> Publisher<D> {
    /// Sends many messages, at most `at_once` (1 to 1,024) at the same time; a result for each, in
    /// their order.
    ///
    /// Messages of one topic and message group are sent one after another, in the order given. When
    /// one of them fails, those behind it are not sent, so that sending the rest again keeps the
    /// order; their error is [`ErrorKind::Other`].
    ///
    /// All messages are in memory from the start, and their results until the last is sent: send
    /// more than fit in parts.
    ///
    /// ```
    /// use kratos_broker::{Message, Publisher, memory};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let publisher = Publisher::new(memory::Broker::new());
    /// let messages = (0..100).map(|n| Message::new("numbers", n.to_string()));
    /// let results = publisher.publish_all(messages, 16).await;
    /// assert!(results.len() == 100 && results.iter().all(Result::is_ok));
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// A dropped call has sent some of the messages, and others not.
    pub async fn publish_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
        at_once: usize,
    ) -> Vec<Result<Receipt>> {
        let drafts = messages.into_iter().map(Draft::from).collect();
        self.send_all(drafts, at_once).await
    }

    /// The same with messages that could not be made: their errors are their results.
    pub(crate) async fn send_all(
        &self,
        drafts: Vec<Draft>,
        at_once: usize,
    ) -> Vec<Result<Receipt>> {
        let count = drafts.len();
        let chains = stream::iter(chains(drafts));
        let sent: Vec<Vec<(usize, Result<Receipt>)>> = chains
            .map(|chain| self.send_chain(chain))
            .buffer_unordered(at_once.clamp(1, AT_ONCE_MAX))
            .collect()
            .await;
        let mut results: Vec<_> = sent.into_iter().flatten().collect();
        debug_assert_eq!(results.len(), count);
        results.sort_unstable_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn send_chain(&self, chain: Chain) -> Vec<(usize, Result<Receipt>)> {
        let mut results = Vec::with_capacity(chain.len());
        let mut failed = None;
        for (place, Draft { message, flaw }) in chain {
            let result = match (failed, flaw) {
                (_, Some(error)) => Err(error),
                (Some(first), None) => Err(not_sent(first, &message)),
                (None, None) => self.publish(message).await,
            };
            if result.is_err() {
                failed.get_or_insert(place);
            }
            results.push((place, result));
        }
        results
    }
}

/// A message that is to be sent.
pub(crate) struct Draft {
    /// Without its body, if that could not be made: it has a place in its message group all the
    /// same.
    pub(crate) message: Message,
    /// Why it cannot be sent.
    pub(crate) flaw: Option<Error>,
}

impl From<Message> for Draft {
    fn from(message: Message) -> Self {
        Self {
            message,
            flaw: None,
        }
    }
}

/// Messages that are sent one after another, with their places among all.
type Chain = Vec<(usize, Draft)>;

fn chains(drafts: Vec<Draft>) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::with_capacity(drafts.len());
    let mut of_group: HashMap<(String, String), usize> = HashMap::new();
    for (place, draft) in drafts.into_iter().enumerate() {
        let message = &draft.message;
        let group = message.group_ref();
        let group = group.map(|group| (message.topic().to_string(), group.to_owned()));
        match group {
            Some(group) => {
                let chain = *of_group.entry(group).or_insert_with(|| {
                    chains.push(Vec::new());
                    chains.len() - 1
                });
                chains[chain].push((place, draft));
            }
            None => chains.push(vec![(place, draft)]),
        }
    }
    chains
}

fn not_sent(first: usize, message: &Message) -> Error {
    let (topic, group) = (message.topic(), message.group_ref().unwrap_or_default());
    let what = format!(
        "not sent: message {first} of the same call, before it in message group {group} of topic \
         {topic}, failed"
    );
    Error::new(ErrorKind::Other, what)
}
