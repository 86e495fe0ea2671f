//! Bodies, decoded. A body that cannot be decoded is poison: dead-lettered at once, as it is.

use super::{BodyType, FromDelivery, Rejection};
use crate::{Delivery, Disposition};

/// A body in JSON: decoded as an extractor, encoded by [`Message::json`](crate::Message::json).
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A body in protobuf: decoded as an extractor, encoded by
/// [`Message::protobuf`](crate::Message::protobuf).
#[cfg(feature = "protobuf")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protobuf<T>(pub T);

#[cfg(feature = "json")]
impl<S, T: serde::de::DeserializeOwned + 'static> FromDelivery<S> for Json<T> {
    fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Rejection> {
        decode(delivery.body())
            .map(Self)
            .map_err(|error| undecodable::<T>(&error))
    }

    fn body() -> Option<BodyType> {
        Some(BodyType::of::<T>(crate::codec::JSON))
    }
}

/// A body that is text is decoded as text: to look at it once is cheaper than at each of its strings.
#[cfg(feature = "json")]
fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    match text(body) {
        Some(text) => serde_json::from_str(text),
        // It may be in what nobody reads; else this says where.
        None => serde_json::from_slice(body),
    }
}

// Not inlined: it answers in registers then, and nothing waits for memory.
#[cfg(feature = "json")]
#[inline(never)]
fn text(body: &[u8]) -> Option<&str> {
    std::str::from_utf8(body).ok()
}

#[cfg(feature = "protobuf")]
impl<S, T: prost::Message + Default + 'static> FromDelivery<S> for Protobuf<T> {
    fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Rejection> {
        // From `Bytes`, so that fields of type `Bytes` share the body.
        T::decode(delivery.body().clone())
            .map(Self)
            .map_err(|error| undecodable::<T>(&error))
    }

    fn body() -> Option<BodyType> {
        Some(BodyType::of::<T>(crate::codec::PROTOBUF))
    }
}

#[cfg(any(feature = "json", feature = "protobuf"))]
fn undecodable<T>(error: &dyn std::fmt::Display) -> Rejection {
    let name = std::any::type_name::<T>();
    Rejection::new(
        Disposition::Poison,
        "decode",
        format!("body is no {name}: {error}"),
    )
}
