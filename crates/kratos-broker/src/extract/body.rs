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
        serde_json::from_slice(delivery.body())
            .map(Self)
            .map_err(|error| undecodable::<T>(&error))
    }

    fn body() -> Option<BodyType> {
        Some(BodyType::of::<T>(crate::codec::JSON))
    }
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
