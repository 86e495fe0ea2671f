//! Batches: handlers that take several messages at once.

mod deliveries;
mod extract;
mod handler;
mod outcome;
mod settings;

use std::{ops::Deref, vec};

pub(crate) use self::{deliveries::Results, handler::BatchService};
pub use self::{
    deliveries::{Deliveries, Outcomes},
    extract::FromBatch,
    handler::{BatchFuture, BatchHandler, BatchReturn},
    outcome::BatchOutcome,
    settings::BatchSettings,
};

use crate::Delivery;

/// The messages of one call of a batch handler, at least one: its last argument.
///
/// `B` is what is made of each message: `Json<T>`, `Protobuf<T>`, [`Bytes`](crate::Bytes), or any
/// other [extractor](crate::FromDelivery). A message of which it cannot be made is settled by
/// itself (a body that cannot be decoded is dead-lettered) and is not here;
/// `Batch<Result<Json<T>, Rejection>>` hands it to the handler instead.
///
/// A slice of [`BatchItem`]s, in the order in which they were received; of one key whose order is
/// kept, in that order.
///
/// ```
/// use kratos_broker::{AnyError, Batch, BatchSettings, Json, Router, State, Subscription};
///
/// #[derive(Clone)]
/// struct Store;
///
/// impl Store {
///     async fn insert(&self, rows: &[u64]) -> Result<(), std::io::Error> {
///         # let _ = rows;
///         Ok(())
///     }
/// }
///
/// /// All or none.
/// async fn save(State(store): State<Store>, batch: Batch<Json<u64>>) -> Result<(), AnyError> {
///     let rows: Vec<u64> = batch.iter().map(|item| item.body.0).collect();
///     store.insert(&rows).await?;
///     Ok(())
/// }
///
/// let subscription = Subscription::new("readings", "saver").concurrency(2);
/// let router: Router = Router::new()
///     .subscribe_batch(subscription, BatchSettings::new(500), save)
///     .with_state(Store);
/// ```
#[derive(Clone, Debug)]
pub struct Batch<B> {
    items: Vec<BatchItem<B>>,
}

/// One message of a [`Batch`].
#[derive(Clone, Debug)]
pub struct BatchItem<B> {
    /// What was made of it.
    pub body: B,
    /// The message itself: id, headers, keys, attempt.
    pub delivery: Delivery,
}

// === impl Batch ===

impl<B> Deref for Batch<B> {
    type Target = [BatchItem<B>];

    fn deref(&self) -> &[BatchItem<B>] {
        &self.items
    }
}

impl<B> IntoIterator for Batch<B> {
    type Item = BatchItem<B>;
    type IntoIter = vec::IntoIter<BatchItem<B>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, B> IntoIterator for &'a Batch<B> {
    type Item = &'a BatchItem<B>;
    type IntoIter = std::slice::Iter<'a, BatchItem<B>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// For tests of a handler.
impl<B> From<Vec<BatchItem<B>>> for Batch<B> {
    fn from(items: Vec<BatchItem<B>>) -> Self {
        Self { items }
    }
}
