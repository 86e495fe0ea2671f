//! Handlers: plain async functions of extractors.

mod failure;
mod future;
mod service;

pub use self::{
    failure::{AnyError, Disposition, Failure, HandlerError},
    future::{HandlerFuture, HandlerReturn},
    service::HandlerService,
};

use crate::{BodyType, Delivery, FromDelivery, subscription::Classifiers};

/// A plain async function of up to eight extractors, in any order.
///
/// Implemented for functions and closures; it cannot be implemented elsewhere. The function
/// returns `()`, or `Result<(), E>` with `E:` [`HandlerError`]; a message is acknowledged only
/// after it returned `()` or `Ok`.
///
/// ```
/// use kratos_broker::{AnyError, Bytes, MessageId, State};
///
/// #[derive(Clone)]
/// struct Store;
///
/// async fn save(State(store): State<Store>, id: MessageId, body: Bytes) -> Result<(), AnyError> {
///     let text = std::str::from_utf8(&body)?;
///     // store.insert(id, text).await?;
///     # let _ = (store, id, text);
///     Ok(())
/// }
/// # let _ = kratos_broker::Router::<Store>::new().subscribe("t", "g", save);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message handler for state `{S}`",
    label = "not a handler",
    note = "a handler is an async function of at most 8 extractors that returns () or Result<(), E>"
)]
pub trait Handler<T, S>: sealed::Sealed<T> + Clone + Send + Sync + 'static {
    #[doc(hidden)]
    type Future: Future<Output = Result<(), Failure>> + Send;

    #[doc(hidden)]
    fn call(&self, delivery: &Delivery, state: &S, classifiers: &Classify) -> Self::Future;

    /// What it makes of a body.
    #[doc(hidden)]
    fn bodies() -> Vec<BodyType>;
}

/// What decides about errors; only [`Handler::call`] needs it.
#[doc(hidden)]
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "hidden, holds closures")]
pub struct Classify(pub(crate) Classifiers);

mod sealed {
    pub trait Sealed<T> {}
}

macro_rules! handler {
    ($($arg:ident)*) => {
        impl<F, Fut, S, $($arg,)*> Handler<($($arg,)*), S> for F
        where
            F: Fn($($arg,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future + Send,
            Fut::Output: HandlerReturn,
            $($arg: FromDelivery<S>,)*
        {
            type Future = HandlerFuture<Fut>;

            #[allow(non_snake_case, unused_variables, reason = "the names of types serve for values")]
            fn call(&self, delivery: &Delivery, state: &S, classify: &Classify) -> Self::Future {
                $(
                    let $arg = match $arg::from_delivery(delivery, state) {
                        Ok(value) => value,
                        Err(rejection) => return HandlerFuture::rejected(rejection),
                    };
                )*
                HandlerFuture::running(self($($arg),*), classify.clone())
            }

            fn bodies() -> Vec<BodyType> {
                let bodies: [Option<BodyType>; _] = [$($arg::body()),*];
                bodies.into_iter().flatten().collect()
            }
        }

        impl<F, Fut, $($arg,)*> sealed::Sealed<($($arg,)*)> for F
        where
            F: Fn($($arg,)*) -> Fut,
        {
        }
    };
}

handler!();
handler!(A1);
handler!(A1 A2);
handler!(A1 A2 A3);
handler!(A1 A2 A3 A4);
handler!(A1 A2 A3 A4 A5);
handler!(A1 A2 A3 A4 A5 A6);
handler!(A1 A2 A3 A4 A5 A6 A7);
handler!(A1 A2 A3 A4 A5 A6 A7 A8);
