//! The typed handle for sending values of one type to one topic.

use std::{fmt, sync::Arc};

use bytes::Bytes;

#[cfg(feature = "json")]
use crate::codec::AsJson;
#[cfg(feature = "protobuf")]
use crate::codec::AsProtobuf;
use crate::{
    CONTENT_TYPE, Encode, Message, Publisher, Receipt, Resolution, Result, Topic, Transacted,
    codec::unencodable, driver::Driver, publisher::Draft,
};

/// Publishes values of `T` to one topic: codec, key, message group and tag are said once, where it
/// is made. Cheap to clone; made to be a handler's [`State`](crate::State).
///
/// A value that is published inside a handler, of messages or of HTTP, belongs to the same trace:
/// its `send` span is a child of the span that the handler runs in.
///
/// ```
/// use kratos_broker::{Publisher, TopicPublisher, memory};
///
/// #[derive(serde::Serialize)]
/// struct Order { id: String, shop: u32 }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), kratos_broker::Error> {
/// # let broker = memory::Broker::new();
/// let orders = TopicPublisher::json(Publisher::new(broker), "orders")
///     .key(|order: &Order| order.id.clone())
///     .tag("created");
/// let receipt = orders.publish(&Order { id: "order-7".into(), shop: 12 }).await?;
/// # let _ = receipt;
/// # Ok(())
/// # }
/// ```
pub struct TopicPublisher<D, T> {
    publisher: Publisher<D>,
    recipe: Arc<Recipe<T>>,
}

/// How a value becomes a message.
struct Recipe<T> {
    topic: Topic,
    codec: Arc<dyn Encode<T>>,
    key: Option<Part<T>>,
    group: Option<Part<T>>,
    tag: Option<Arc<str>>,
    with: Option<Finish<T>>,
    #[cfg(feature = "asyncapi")]
    schema: Option<crate::asyncapi::SchemaOf>,
}

type Part<T> = Arc<dyn Fn(&T) -> String + Send + Sync>;
type Finish<T> = Arc<dyn Fn(Message, &T) -> Message + Send + Sync>;

// === impl TopicPublisher ===

impl<D: Driver, T: 'static> TopicPublisher<D, T> {
    /// A publisher of bodies that `codec` makes. Does no I/O.
    pub fn new(publisher: Publisher<D>, topic: impl Into<Topic>, codec: impl Encode<T>) -> Self {
        let recipe = Recipe {
            topic: topic.into(),
            codec: Arc::new(codec),
            key: None,
            group: None,
            tag: None,
            with: None,
            #[cfg(feature = "asyncapi")]
            schema: None,
        };
        Self::announced(publisher, Arc::new(recipe))
    }

    /// A publisher of bodies in JSON.
    #[cfg(feature = "json")]
    pub fn json(publisher: Publisher<D>, topic: impl Into<Topic>) -> Self
    where
        T: serde::Serialize,
    {
        Self::new(publisher, topic, AsJson)
    }

    /// A publisher of bodies in protobuf.
    #[cfg(feature = "protobuf")]
    pub fn protobuf(publisher: Publisher<D>, topic: impl Into<Topic>) -> Self
    where
        T: prost::Message,
    {
        Self::new(publisher, topic, AsProtobuf)
    }

    /// Documents the messages with the JSON Schema of `T`, in the AsyncAPI document of the driver.
    /// A publisher without a schema is in it too, with the name of its type.
    #[cfg(feature = "asyncapi")]
    #[must_use]
    pub fn schema(self) -> Self
    where
        T: schemars::JsonSchema,
    {
        self.change(|recipe| recipe.schema = Some(crate::asyncapi::SchemaOf::of::<T>()))
    }

    /// Sets the key of a value: what people look its message up by, and what a consumer that is
    /// idempotent by key goes by. It gives no order; [`group`](Self::group) does.
    #[must_use]
    pub fn key<K: Into<String>>(self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.change(|recipe| recipe.key = Some(Arc::new(move |value| key(value).into())))
    }

    /// Sets the message group of a value: messages of one group are delivered in the order they
    /// were sent. The topic must be one that the broker keeps in order.
    #[must_use]
    pub fn group<K: Into<String>>(self, group: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.change(|recipe| recipe.group = Some(Arc::new(move |value| group(value).into())))
    }

    /// Sets the tag of all messages, which subscribers filter by.
    #[must_use]
    pub fn tag(self, tag: impl Into<Arc<str>>) -> Self {
        self.change(|recipe| recipe.tag = Some(tag.into()))
    }

    /// Finishes every message, after all else is set: a header or a tag that depends on the value,
    /// a delay that is always the same. A second call replaces the first.
    #[must_use]
    pub fn with(self, with: impl Fn(Message, &T) -> Message + Send + Sync + 'static) -> Self {
        self.change(|recipe| recipe.with = Some(Arc::new(with)))
    }

    /// Where the values go.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.recipe.topic
    }

    /// The message of a value, not sent.
    ///
    /// # Errors
    ///
    /// The value cannot be encoded ([`is_invalid`](crate::Error::is_invalid)).
    pub fn message(&self, value: &T) -> Result<Message> {
        let body = self.recipe.body(value)?;
        Ok(self.recipe.message(value, body))
    }

    /// The message of a value, which goes without its body if it cannot be encoded.
    fn draft(&self, value: &T) -> Draft {
        let (body, flaw) = match self.recipe.body(value) {
            Ok(body) => (body, None),
            Err(error) => (Bytes::new(), Some(error)),
        };
        let message = self.recipe.message(value, body);
        Draft { message, flaw }
    }

    /// Sends a value; returns when the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// Those of [`message`](Self::message) and of [`Publisher::publish`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not have sent the value.
    pub async fn publish(&self, value: &T) -> Result<Receipt> {
        let message = self.message(value)?;
        self.publisher.publish(message).await
    }

    /// Sends a value with options of this one message: a delay, a priority, another header.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use kratos_broker::{Publisher, TopicPublisher, memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), kratos_broker::Error> {
    /// # let broker = memory::Broker::new();
    /// let reminders = TopicPublisher::json(Publisher::new(broker), "reminders");
    /// let soon = Duration::from_secs(60);
    /// reminders.publish_with(&"order-7", |m| m.delay(soon).header("why", "unpaid")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not have sent the value.
    pub async fn publish_with(
        &self,
        value: &T,
        options: impl FnOnce(Message) -> Message,
    ) -> Result<Receipt> {
        let message = options(self.message(value)?);
        self.publisher.publish(message).await
    }

    /// Sends many values, at most `at_once` at the same time; a result for each, in their order.
    ///
    /// Values of one message group are sent one after another, and none after one that failed, or
    /// could not be encoded: see [`Publisher::publish_all`]. All are encoded before the first is
    /// sent, and in memory until the last is: send more than fit in parts. A body that
    /// [`with`](Self::with) looks at is empty if it could not be encoded.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has sent some of the values, and others not.
    pub async fn publish_all<'v>(
        &self,
        values: impl IntoIterator<Item = &'v T>,
        at_once: usize,
    ) -> Vec<Result<Receipt>> {
        let drafts = values.into_iter().map(|it| self.draft(it)).collect();
        self.publisher.send_all(drafts, at_once).await
    }

    /// Sends a value if, and only if, a local transaction commits: [`Publisher::transaction`].
    ///
    /// # Errors
    ///
    /// Those of [`message`](Self::message) and of [`Publisher::transaction`]; `local` was not run
    /// then.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves the decision to the checker.
    pub async fn transaction<L, F>(&self, value: &T, local: L) -> Result<Transacted>
    where
        L: FnOnce(Receipt) -> F + Send,
        F: Future<Output = Resolution> + Send,
    {
        let message = self.message(value)?;
        self.publisher.transaction(message, local).await
    }

    fn change(mut self, change: impl FnOnce(&mut Recipe<T>)) -> Self {
        change(Arc::make_mut(&mut self.recipe));
        Self::announced(self.publisher, self.recipe)
    }

    /// Known to the driver, for documents, as long as the recipe is in use.
    fn announced(publisher: Publisher<D>, recipe: Arc<Recipe<T>>) -> Self {
        #[cfg(feature = "asyncapi")]
        if let Some(outlets) = publisher.driver().outlets() {
            let known: std::sync::Weak<Recipe<T>> = Arc::downgrade(&recipe);
            outlets.add(known);
        }
        Self { publisher, recipe }
    }
}

impl<D: Clone, T> Clone for TopicPublisher<D, T> {
    fn clone(&self) -> Self {
        Self {
            publisher: self.publisher.clone(),
            recipe: self.recipe.clone(),
        }
    }
}

impl<D, T> fmt::Debug for TopicPublisher<D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicPublisher")
            .field("topic", &self.recipe.topic)
            .field("tag", &self.recipe.tag)
            .finish_non_exhaustive()
    }
}

// === impl Recipe ===

impl<T: 'static> Recipe<T> {
    fn body(&self, value: &T) -> Result<Bytes> {
        let body = self.codec.encode(value);
        body.map_err(|error| unencodable::<T>(self.codec.content_type(), &self.topic, error))
    }

    fn message(&self, value: &T, body: Bytes) -> Message {
        let content_type = self.codec.content_type().to_owned();
        let mut message = Message::new(&self.topic, body).header(CONTENT_TYPE, content_type);
        if let Some(key) = &self.key {
            message = message.key(key(value));
        }
        if let Some(group) = &self.group {
            message = message.group(group(value));
        }
        if let Some(tag) = &self.tag {
            message = message.tag(&**tag);
        }
        match &self.with {
            Some(with) => with(message, value),
            None => message,
        }
    }
}

impl<T> Clone for Recipe<T> {
    fn clone(&self) -> Self {
        Self {
            topic: self.topic.clone(),
            codec: self.codec.clone(),
            key: self.key.clone(),
            group: self.group.clone(),
            tag: self.tag.clone(),
            with: self.with.clone(),
            #[cfg(feature = "asyncapi")]
            schema: self.schema,
        }
    }
}

#[cfg(feature = "asyncapi")]
impl<T: 'static> crate::asyncapi::Outlet for Recipe<T> {
    fn sending(&self) -> crate::asyncapi::Sending {
        crate::asyncapi::Sending {
            topic: self.topic.clone(),
            content_type: self.codec.content_type().to_owned(),
            type_id: std::any::TypeId::of::<T>(),
            type_name: std::any::type_name::<T>(),
            tag: self.tag.clone(),
            keyed: self.key.is_some(),
            grouped: self.group.is_some(),
            schema: self.schema,
        }
    }
}
