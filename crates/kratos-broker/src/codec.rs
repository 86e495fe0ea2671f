//! Bodies, encoded: how typed values become messages.

use crate::Message;
#[cfg(any(feature = "json", feature = "protobuf"))]
use crate::Topic;
#[cfg(feature = "json")]
use crate::{Error, Result};

/// The header that says how a body is encoded.
pub const CONTENT_TYPE: &str = "content-type";

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
            Ok(body) => Ok(Self::new(topic, body).header(CONTENT_TYPE, "application/json")),
            Err(error) => {
                let name = std::any::type_name::<T>();
                let what = format!("cannot encode {name} as json for topic {topic}");
                Err(Error::invalid(what).with_source(error))
            }
        }
    }

    /// A message whose body is `value` in protobuf, with the header
    /// `content-type: application/protobuf`.
    #[cfg(feature = "protobuf")]
    pub fn protobuf<T: prost::Message>(topic: impl Into<Topic>, value: &T) -> Self {
        Self::new(topic, value.encode_to_vec()).header(CONTENT_TYPE, "application/protobuf")
    }
}
