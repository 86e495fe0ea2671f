//! Extractors: what a handler's arguments are made of.

#[cfg(any(feature = "json", feature = "protobuf"))]
mod body;
mod body_type;
mod meta;
mod rejection;
mod state;

#[cfg(feature = "json")]
pub use self::body::Json;
#[cfg(feature = "protobuf")]
pub use self::body::Protobuf;
pub use self::{
    body_type::BodyType,
    meta::{Attempt, Cancelled, Deadline, Key, Tag},
    rejection::Rejection,
    state::{Extension, FromRef, State},
};

use crate::Delivery;

/// Makes a handler's argument from a message, by reference and without waiting: so any order of
/// arguments works.
///
/// ```
/// use kratos_broker::{Delivery, FromDelivery, Rejection};
///
/// struct Tenant(String);
///
/// impl<S> FromDelivery<S> for Tenant {
///     fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Rejection> {
///         let tenant = delivery.headers().get("tenant");
///         tenant.map(|t| Self(t.to_owned())).ok_or_else(|| Rejection::poison("no tenant header"))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extractor for state `{S}`",
    label = "not an extractor",
    note = "extractors: State<T>, Json<T>, Protobuf<T>, Bytes, Headers, Key, Tag, Attempt, Deadline,",
    note = "  MessageId, Cancelled, Extension<T>, Delivery, Option<Key>, Option<Tag>",
    note = "Batch<T> belongs to handlers of batches, which are given to subscribe_batch"
)]
pub trait FromDelivery<S>: Sized {
    /// Makes the argument.
    ///
    /// # Errors
    ///
    /// The message cannot be handled, and what follows: [`Rejection`].
    fn from_delivery(delivery: &Delivery, state: &S) -> Result<Self, Rejection>;

    /// What the argument is made of if it is a decoded body, as [`Json`](crate::Json) is: for
    /// documents of the service. `None` for anything else.
    #[must_use]
    fn body() -> Option<BodyType> {
        None
    }
}

/// Hands a rejection to the handler instead of rejecting the message.
impl<S, T: FromDelivery<S>> FromDelivery<S> for Result<T, Rejection> {
    fn from_delivery(delivery: &Delivery, state: &S) -> Result<Self, Rejection> {
        Ok(T::from_delivery(delivery, state))
    }

    fn body() -> Option<BodyType> {
        T::body()
    }
}
