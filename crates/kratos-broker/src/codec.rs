//! Bodies, encoded: how typed values become messages.

#[cfg(any(feature = "json", feature = "protobuf"))]
use crate::Topic;
use crate::{Error, Message, Result};

use bytes::Bytes;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The header that says how a body is encoded.
pub const CONTENT_TYPE: &str = "content-type";

/// How values of `T` become bodies: what a [`TopicPublisher`](crate::TopicPublisher) is made with.
///
/// ```
/// use kratos_broker::{Bytes, Encode};
///
/// struct Csv;
///
/// impl Encode<Vec<String>> for Csv {
///     fn content_type(&self) -> &str {
///         "text/csv"
///     }
///
///     fn encode(&self, row: &Vec<String>) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
///         Ok(row.join(",").into())
///     }
/// }
/// ```
pub trait Encode<T>: Send + Sync + 'static {
    /// The value of the header [`CONTENT_TYPE`].
    fn content_type(&self) -> &str;

    /// The body.
    ///
    /// # Errors
    ///
    /// The value has no such form.
    fn encode(&self, value: &T) -> Result<Bytes, BoxError>;
}

/// Values as JSON.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsJson;

/// Values as protobuf.
#[cfg(feature = "protobuf")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsProtobuf;

/// That a value could not be encoded, in our words.
pub(crate) fn unencodable<T: ?Sized>(
    content_type: &str,
    topic: &str,
    error: impl Into<BoxError>,
) -> Error {
    let name = std::any::type_name::<T>();
    let what = format!("cannot encode {name} as {content_type} for topic {topic}");
    Error::invalid(what).with_source(error)
}

#[cfg(feature = "json")]
pub(crate) const JSON: &str = "application/json";

#[cfg(feature = "protobuf")]
pub(crate) const PROTOBUF: &str = "application/protobuf";

impl Message {
    /// A message whose body is `value` in JSON, with the header `content-type: application/json`.
    ///
    /// # Errors
    ///
    /// `value` has no JSON form: a map whose keys are no strings, a failing `Serialize`.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(topic: impl Into<Topic>, value: &T) -> Result<Self> {
        let topic = topic.into();
        match serde_json::to_vec(value) {
            Ok(body) => Ok(Self::new(topic, body).header(CONTENT_TYPE, JSON)),
            Err(error) => Err(unencodable::<T>(JSON, &topic, error)),
        }
    }

    /// A message whose body is `value` in protobuf, with the header
    /// `content-type: application/protobuf`.
    #[cfg(feature = "protobuf")]
    pub fn protobuf<T: prost::Message>(topic: impl Into<Topic>, value: &T) -> Self {
        Self::new(topic, value.encode_to_vec()).header(CONTENT_TYPE, PROTOBUF)
    }
}

#[cfg(feature = "json")]
impl<T: serde::Serialize> Encode<T> for AsJson {
    fn content_type(&self) -> &str {
        JSON
    }

    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(serde_json::to_vec(value)?.into())
    }
}

#[cfg(feature = "protobuf")]
impl<T: prost::Message> Encode<T> for AsProtobuf {
    fn content_type(&self) -> &str {
        PROTOBUF
    }

    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(value.encode_to_vec().into())
    }
}
