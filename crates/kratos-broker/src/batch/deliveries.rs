//! A batch as the engine and layers see it: what the service is asked, and what it answers.

use std::{
    fmt,
    sync::{Arc, Mutex},
    vec,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Delivery, Disposition, Failure, Topic};

/// The request that [tower] layers of a batch subscription see: at least one message.
///
/// A layer that takes single [`Delivery`]s does not fit a batch subscription: subscribe before the
/// layer is added, or on a router of its own.
///
/// [tower]: https://docs.rs/tower
#[derive(Clone)]
pub struct Deliveries {
    items: Vec<Delivery>,
    rejected: Rejected,
}

/// What could not be decoded, by index. Told beside the answer: it stands whatever becomes of the
/// handler.
pub(crate) type Rejected = Arc<Mutex<Vec<(usize, Failure)>>>;

/// The answer of a batch subscription's service, which layers pass on: an outcome per message.
pub struct Outcomes {
    kind: Kind,
}

enum Kind {
    Ok,
    Failed(Failure),
    Each(Vec<Result<(), Failure>>),
}

/// What became of the messages of a batch.
pub(crate) enum Results {
    /// The same of all.
    All(Result<(), Failure>),
    /// In their order.
    Each(vec::IntoIter<Result<(), Failure>>),
}

// === impl Deliveries ===

impl Deliveries {
    pub(crate) fn new(items: Vec<Delivery>) -> Self {
        Self {
            items,
            rejected: Rejected::default(),
        }
    }

    pub(crate) fn rejected(&self) -> Rejected {
        self.rejected.clone()
    }

    /// The messages.
    pub fn iter(&self) -> std::slice::Iter<'_, Delivery> {
        self.items.iter()
    }

    /// How many there are; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Where they were published.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.first().topic()
    }

    /// When this attempt is cancelled: the handler's time limit, or the end of the first lease's
    /// renewal.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.first().deadline()
    }

    /// A token that fires before the handler's future is dropped: a lease lost, time limit passed,
    /// shutdown.
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        self.first().cancelled()
    }

    /// A value that the server or a layer attached, by its type.
    #[must_use]
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.first().extension()
    }

    /// Attaches a value to this attempt, for the handler and for each message: for layers.
    pub fn insert_extension<T: Send + Sync + 'static>(&mut self, value: T) {
        let mut extensions = self.first().extensions().cloned().unwrap_or_default();
        Arc::make_mut(&mut extensions).insert(value);
        for delivery in &mut self.items {
            delivery.set_extensions(extensions.clone());
        }
    }

    /// What belongs to the batch as a whole is the same in all of them.
    pub(super) fn first(&self) -> &Delivery {
        &self.items[0]
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.items).finish()
    }
}

impl<'a> IntoIterator for &'a Deliveries {
    type Item = &'a Delivery;
    type IntoIter = std::slice::Iter<'a, Delivery>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

// === impl Outcomes ===

impl Outcomes {
    pub(crate) fn ok() -> Self {
        Self { kind: Kind::Ok }
    }

    pub(crate) fn failed(failure: Failure) -> Self {
        Self {
            kind: Kind::Failed(failure),
        }
    }

    pub(crate) fn each(results: Vec<Result<(), Failure>>) -> Self {
        Self {
            kind: Kind::Each(results),
        }
    }

    /// What became of `count` messages, those that could be decoded.
    pub(crate) fn into_results(self, count: usize) -> Results {
        match self.kind {
            Kind::Ok => Results::All(Ok(())),
            Kind::Failed(failure) => Results::All(Err(failure)),
            Kind::Each(each) if each.len() == count => Results::Each(each.into_iter()),
            Kind::Each(_) => Results::All(Err(Failure::typed(
                Disposition::Retry,
                "bad_outcome",
                "a layer has answered with the outcomes of another batch",
            ))),
        }
    }

    pub(crate) fn first_failure(&self) -> Option<&Failure> {
        match &self.kind {
            Kind::Ok => None,
            Kind::Failed(failure) => Some(failure),
            Kind::Each(each) => each.iter().find_map(|result| result.as_ref().err()),
        }
    }
}

impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes")
            .field("first_failure", &self.first_failure())
            .finish_non_exhaustive()
    }
}
