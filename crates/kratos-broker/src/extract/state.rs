//! The application's state, and values attached by the server or by layers.

use super::{FromDelivery, Rejection};
use crate::{Delivery, Disposition};

/// The router's state, or a part of it ([`FromRef`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct State<T>(pub T);

/// A value that the server attached (`AppInfo` of `kratos` always is) or a layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extension<T>(pub T);

/// A part of the router's state.
pub trait FromRef<S> {
    /// Makes the part, which should be cheap: it is made for every message.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> T {
        state.clone()
    }
}

impl<S, T: FromRef<S>> FromDelivery<S> for State<T> {
    fn from_delivery(_: &Delivery, state: &S) -> Result<Self, Rejection> {
        Ok(Self(T::from_ref(state)))
    }
}

impl<S, T: Clone + Send + Sync + 'static> FromDelivery<S> for Extension<T> {
    fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Rejection> {
        // Not the message's fault, and every message would fail alike: stop before any is lost.
        let missing = || {
            let name = std::any::type_name::<T>();
            let reason = format!("no extension of type {name}: attach it with Server::extension");
            Rejection::new(Disposition::Fatal, "missing_extension", reason)
        };
        delivery.extension().cloned().map(Self).ok_or_else(missing)
    }
}
