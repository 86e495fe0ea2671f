//! What a batch handler takes beside its batch.

use crate::{Cancelled, Deadline, Deliveries, Extension, FromDelivery, FromRef, Rejection, State};

/// Makes an argument of a batch handler from the whole batch, without waiting. What differs between
/// messages is in the [`Batch`](crate::Batch).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an argument of a batch handler for state `{S}`",
    label = "not an extractor of whole batches",
    note = "the last argument is the batch: Batch<Json<T>>, Batch<Protobuf<T>>, Batch<Bytes>, ..",
    note = "before it: State<T>, Extension<T>, Deadline, Cancelled",
    note = "what belongs to one message (headers, key, id) is in the batch's items"
)]
pub trait FromBatch<S>: Sized {
    /// Makes the argument.
    ///
    /// # Errors
    ///
    /// The batch cannot be handled, and what follows for each of its messages.
    fn from_batch(batch: &Deliveries, state: &S) -> Result<Self, Rejection>;
}

impl<S, T: FromRef<S>> FromBatch<S> for State<T> {
    fn from_batch(_: &Deliveries, state: &S) -> Result<Self, Rejection> {
        Ok(Self(T::from_ref(state)))
    }
}

/// Those that are the same for every message of a batch.
macro_rules! of_any_message {
    ($([$($of:tt)*] $type:ty;)*) => {
        $(
            impl<S, $($of)*> FromBatch<S> for $type {
                fn from_batch(batch: &Deliveries, state: &S) -> Result<Self, Rejection> {
                    Self::from_delivery(batch.first(), state)
                }
            }
        )*
    };
}

of_any_message! {
    [] Deadline;
    [] Cancelled;
    [T: Clone + Send + Sync + 'static] Extension<T>;
}
