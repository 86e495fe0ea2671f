//! What a batch handler says of each message.

use crate::{AnyError, Disposition, Failure, HandlerError, handler::Classify};

use super::Outcomes;

/// What became of each message of a batch, by its index.
///
/// A message that is not named has **failed**, and is tried again: none is lost because it was
/// forgotten. That all others succeeded is said with [`rest_ok`](BatchOutcome::rest_ok).
///
/// ```
/// use kratos_broker::{Batch, BatchOutcome, Json};
/// # async fn insert(_: u64) -> Result<(), std::io::Error> { Ok(()) }
///
/// async fn save(batch: Batch<Json<u64>>) -> BatchOutcome {
///     let mut outcome = BatchOutcome::new();
///     for (index, item) in batch.iter().enumerate() {
///         outcome.set(index, insert(item.body.0).await);
///     }
///     outcome
/// }
/// ```
///
/// Or from the results, one per message and in their order: `results.into_iter().collect()`.
///
/// Of a key whose order is kept, nothing behind a message that is tried again is acknowledged,
/// whatever is said of it: it comes again too.
#[derive(Debug)]
#[must_use = "a batch handler returns its outcome"]
pub struct BatchOutcome<E = AnyError> {
    named: Vec<(usize, Result<(), E>)>,
    rest: Rest<E>,
}

#[derive(Debug)]
enum Rest<E> {
    Unnamed,
    Ok,
    Failed(E),
}

// === impl BatchOutcome ===

impl<E> BatchOutcome<E> {
    /// No message is named yet.
    pub fn new() -> Self {
        Self {
            named: Vec::new(),
            rest: Rest::Unnamed,
        }
    }

    /// The message at `index` succeeded: it is acknowledged.
    ///
    /// An index that the batch has not got fails the whole batch.
    pub fn ok(&mut self, index: usize) {
        self.named.push((index, Ok(())));
    }

    /// The message at `index` failed, also if [`ok`](BatchOutcome::ok) was said of it.
    ///
    /// An index that the batch has not got fails the whole batch.
    pub fn fail(&mut self, index: usize, error: impl Into<E>) {
        self.named.push((index, Err(error.into())));
    }

    /// The message at `index` succeeded or failed.
    pub fn set<F: Into<E>>(&mut self, index: usize, result: Result<(), F>) {
        self.named.push((index, result.map_err(Into::into)));
    }

    /// All that are not named succeeded.
    pub fn rest_ok(mut self) -> Self {
        self.rest = Rest::Ok;
        self
    }

    /// All that are not named failed of this.
    pub fn rest_failed(mut self, error: impl Into<E>) -> Self {
        self.rest = Rest::Failed(error.into());
        self
    }
}

impl<E: HandlerError> BatchOutcome<E> {
    /// One result for each of `count` messages.
    pub(crate) fn into_outcomes(
        self,
        count: usize,
        classify: &Classify,
    ) -> Result<Outcomes, Failure> {
        let failure = |error: &E| Failure::of(error, classify.0.ask(error));
        let mut each = Vec::new();
        each.resize_with(count, || None);
        for (index, result) in self.named {
            let Some(said) = each.get_mut(index) else {
                let what = format!("the outcome names message {index} of a batch of {count}");
                return Err(Failure::typed(Disposition::Retry, "bad_outcome", what));
            };
            match result {
                Ok(()) => {
                    said.get_or_insert(Ok(()));
                }
                Err(error) => *said = Some(Err(failure(&error))),
            }
        }
        let rest = || match &self.rest {
            Rest::Ok => Ok(()),
            Rest::Failed(error) => Err(failure(error)),
            Rest::Unnamed => {
                let what = "the outcome does not name this message, nor the rest";
                Err(Failure::typed(Disposition::Retry, "no_outcome", what))
            }
        };
        let each = each.into_iter().map(|said| said.unwrap_or_else(rest));
        Ok(Outcomes::each(each.collect()))
    }
}

impl<E> Default for BatchOutcome<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// One result per message, in the order of the batch. More than it has fail the whole batch; those
/// that have none are not named.
impl<E> FromIterator<Result<(), E>> for BatchOutcome<E> {
    fn from_iter<I: IntoIterator<Item = Result<(), E>>>(results: I) -> Self {
        Self {
            named: results.into_iter().enumerate().collect(),
            rest: Rest::Unnamed,
        }
    }
}
