//! What an extractor makes of a body, told without a message.

use std::any::{TypeId, type_name};

/// The type that an extractor makes of a body, and the encoding it takes: what documents of a
/// service, and checks of them, go by.
///
/// ```
/// use kratos_broker::{BodyType, Delivery, FromDelivery, Rejection};
///
/// struct Csv(Vec<String>);
///
/// impl<S> FromDelivery<S> for Csv {
///     fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Rejection> {
///         let line = str::from_utf8(delivery.body());
///         let line = line.map_err(|_| Rejection::poison("the body is no text"))?;
///         Ok(Self(line.split(',').map(str::to_owned).collect()))
///     }
///
///     fn body() -> Option<BodyType> {
///         Some(BodyType::of::<Vec<String>>("text/csv"))
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyType {
    content_type: &'static str,
    id: TypeId,
    name: &'static str,
}

impl BodyType {
    /// Bodies of this content type, decoded as `T`.
    #[must_use]
    pub fn of<T: 'static>(content_type: &'static str) -> Self {
        Self {
            content_type,
            id: TypeId::of::<T>(),
            name: type_name::<T>(),
        }
    }

    /// How the bodies are encoded: `application/json`.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// The type.
    #[must_use]
    pub fn id(&self) -> TypeId {
        self.id
    }

    /// The type's name, with its path.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}
