//! What makes two messages the same.

use std::{borrow::Cow, sync::Arc};

use crate::Delivery;

/// A function of a delivery; the message id if there is none, or it does not know.
#[derive(Clone, Default)]
pub(super) struct KeyOf(Option<Arc<Function>>);

type Function = dyn Fn(&Delivery) -> Option<String> + Send + Sync;

impl KeyOf {
    pub(super) fn new(key: impl Fn(&Delivery) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(key)))
    }

    /// Ids and keys are kept apart: one may be spelled like the other.
    pub(super) fn of<'d>(&self, delivery: &'d Delivery) -> Cow<'d, str> {
        let Some(key) = &self.0 else {
            return Cow::Borrowed(delivery.id());
        };
        match key(delivery) {
            Some(key) => Cow::Owned(format!("key:{key}")),
            None => Cow::Owned(format!("id:{}", delivery.id())),
        }
    }
}
