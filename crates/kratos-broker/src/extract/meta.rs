//! What is known about a message besides its body.

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{FromDelivery, Rejection};
use crate::{Delivery, Headers, MessageId};

/// The message group, else the first key. A message without either is rejected as poison; take
/// `Option<Key>` where that is normal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(pub String);

/// The tag. A message without is rejected as poison; take `Option<Tag>` where that is normal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub String);

/// Which attempt this is, 1 for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u32);

/// Until when this attempt should end: see [`Delivery::deadline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// A token that fires before the handler's future is dropped, for work that the handler spawned.
#[derive(Clone, Debug)]
pub struct Cancelled(pub CancellationToken);

macro_rules! extractor {
    ($($type:ty, |$delivery:ident| $value:expr;)*) => {
        $(
            impl<S> FromDelivery<S> for $type {
                fn from_delivery($delivery: &Delivery, _: &S) -> Result<Self, Rejection> {
                    $value
                }
            }
        )*
    };
}

extractor! {
    Delivery, |delivery| Ok(delivery.clone());
    Bytes, |delivery| Ok(delivery.body().clone());
    Headers, |delivery| Ok(delivery.headers().clone());
    MessageId, |delivery| Ok(delivery.id().clone());
    Attempt, |delivery| Ok(Self(delivery.attempt()));
    Cancelled, |delivery| Ok(Self(delivery.cancelled()));
    Option<Key>, |delivery| {
        let key = delivery.message_group().or_else(|| delivery.keys().first().map(String::as_str));
        Ok(key.map(|key| Key(key.to_owned())))
    };
    Option<Tag>, |delivery| Ok(delivery.tag().map(|tag| Tag(tag.to_owned())));
    Key, |delivery| {
        let key = Option::<Self>::from_delivery(delivery, &())?;
        key.ok_or_else(|| Rejection::poison("the message has no key"))
    };
    Tag, |delivery| {
        let tag = Option::<Self>::from_delivery(delivery, &())?;
        tag.ok_or_else(|| Rejection::poison("the message has no tag"))
    };
    Deadline, |delivery| {
        let deadline = delivery.deadline().map(Self);
        deadline.ok_or_else(|| Rejection::retry("no deadline: not called by the engine"))
    };
}
