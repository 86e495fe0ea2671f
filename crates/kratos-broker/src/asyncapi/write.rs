//! The document, piece by piece.

use std::{any::TypeId, collections::HashMap};

use serde_json::{Map, Value, json};

use super::{
    Part, PublisherPart, Sending, SubscriptionPart, TopicPart,
    parts::{dead_letter, dead_letter_headers, headers, retry},
    schemas::{SchemaOf, Schemas, key},
};
use crate::{BodyType, DeadLetter, Driver, Subscription, Topic};

/// A document in the making.
pub(super) struct Document<'d, D> {
    driver: &'d D,
    server: String,
    servers: Map<String, Value>,
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    /// Those of ours, beside those of the types.
    headers: Map<String, Value>,
    schemas: Schemas,
    documented: HashMap<TypeId, SchemaOf>,
}

/// What a message is, before it is a part of the document.
struct Payload<'a> {
    content_type: Option<&'a str>,
    type_name: Option<&'a str>,
    schema: Option<SchemaOf>,
}

// === impl Document ===

impl<'d, D: Driver> Document<'d, D> {
    pub(super) fn new(
        driver: &'d D,
        server: &str,
        documented: impl Iterator<Item = SchemaOf>,
    ) -> Self {
        let mut document = Self {
            driver,
            server: key(server),
            servers: Map::new(),
            channels: Map::new(),
            operations: Map::new(),
            messages: Map::new(),
            headers: Map::new(),
            schemas: Schemas::new(),
            documented: documented.map(|schema| (schema.id, schema)).collect(),
        };
        let broker = json!({ "host": driver.host(), "protocol": D::SYSTEM });
        let broker = document.extended(broker, Part::Server);
        document.servers.insert(document.server.clone(), broker);
        document
    }

    pub(super) fn receive(&mut self, subscription: &Subscription) {
        let Subscription {
            topic,
            group,
            schema,
            ..
        } = subscription;
        // Of several bodies the one that the schema is of.
        let bodies = subscription.bodies();
        let is_documented = |body: &&BodyType| self.documented.contains_key(&body.id());
        let body = bodies.iter().find(is_documented).or(bodies.first());
        let known = || self.documented.get(&body?.id()).copied();
        let payload = Payload {
            content_type: body.map(BodyType::content_type),
            type_name: body.map(BodyType::name),
            schema: schema.or_else(known),
        };
        let channel = self.channel(topic, subscription.fifo);
        let message = self.message(&channel, &payload);
        let mut operation = json!({
            "action": "receive",
            "title": format!("{topic} in group {group}"),
            "channel": { "$ref": pointer(&["channels", &channel]) },
            "messages": [{ "$ref": message }],
            "x-retry": retry(subscription),
            "x-dead-letter": dead_letter(subscription),
        });
        let part = Part::Subscription(SubscriptionPart::of(subscription));
        operation = self.extended(operation, part);
        let name = format!("receive_{}_{}", key(topic), key(group));
        insert(&mut self.operations, &name, operation);
        if let DeadLetter::Topic(dead) = &subscription.dead_letter {
            self.bury(subscription, dead, &payload);
        }
    }

    pub(super) fn send(&mut self, sending: &Sending) {
        let topic = &sending.topic;
        let channel = self.channel(topic, sending.grouped);
        let payload = Payload {
            content_type: Some(&sending.content_type),
            type_name: Some(sending.type_name),
            schema: self.documented.get(&sending.type_id).copied(),
        };
        let message = self.message(&channel, &payload);
        let operation = json!({
            "action": "send",
            "title": format!("{topic}"),
            "channel": { "$ref": pointer(&["channels", &channel]) },
            "messages": [{ "$ref": message }],
        });
        let part = PublisherPart {
            topic,
            tag: sending.tag.as_deref(),
            keyed: sending.keyed,
            grouped: sending.grouped,
        };
        let operation = self.extended(operation, Part::Publisher(part));
        insert(
            &mut self.operations,
            &format!("send_{}", key(topic)),
            operation,
        );
    }

    /// What the engine publishes itself.
    fn bury(&mut self, subscription: &Subscription, dead: &Topic, payload: &Payload<'_>) {
        let Subscription { topic, group, .. } = subscription;
        let channel = self.channel(dead, false);
        let body = self.body(payload);
        let headers = insert(
            &mut self.headers,
            "DeadLetterHeaders",
            dead_letter_headers(),
        );
        let letter = json!({
            "title": format!("A message of {topic} that group {group} has given up."),
            "headers": { "$ref": pointer(&["components", "schemas", &headers]) },
        });
        let name = format!("{}_DeadLetter", payload.name());
        let message = self.place(&channel, &name, merged(letter, body));
        let operation = json!({
            "action": "send",
            "title": format!("Dead letters of {topic} in group {group}"),
            "channel": { "$ref": pointer(&["channels", &channel]) },
            "messages": [{ "$ref": message }],
        });
        let name = format!("bury_{}_{}", key(topic), key(group));
        insert(&mut self.operations, &name, operation);
    }

    /// The channel of a topic, by its key.
    fn channel(&mut self, topic: &Topic, ordered: bool) -> String {
        let address = Value::from(topic.as_str());
        let mine = |channel: &&String| self.channels[*channel]["address"] == address;
        let known = self.channels.keys().find(mine).cloned();
        let name = known.unwrap_or_else(|| {
            let channel = json!({
                "address": address,
                "servers": [{ "$ref": pointer(&["servers", &self.server]) }],
                "messages": {},
            });
            insert(&mut self.channels, &key(topic), channel)
        });
        // The one who knows of an order may come last.
        let part = Part::Topic(TopicPart { topic, ordered });
        let channel = std::mem::take(&mut self.channels[&name]);
        let said = channel.get(extension::<D>()).is_some();
        self.channels[&name] = match said && !ordered {
            true => channel,
            false => self.extended(channel, part),
        };
        name
    }

    fn message(&mut self, channel: &str, payload: &Payload<'_>) -> String {
        let headers = insert(&mut self.headers, "MessageHeaders", headers());
        let headers = pointer(&["components", "schemas", &headers]);
        let message = merged(
            json!({ "headers": { "$ref": headers } }),
            self.body(payload),
        );
        self.place(channel, &payload.name(), message)
    }

    fn body(&mut self, payload: &Payload<'_>) -> Value {
        let mut body = json!({ "name": payload.name() });
        if let Some(content_type) = payload.content_type {
            body["contentType"] = content_type.into();
        }
        match (payload.schema, payload.type_name) {
            (Some(schema), _) => body["payload"] = self.schemas.payload(&schema),
            (None, Some(name)) => body["summary"] = format!("Of type {name}.").into(),
            (None, None) => {}
        }
        body
    }

    /// Puts a message into the components and into the channel; the reference of the latter.
    fn place(&mut self, channel: &str, name: &str, message: Value) -> String {
        let name = insert(&mut self.messages, name, message);
        let component = pointer(&["components", "messages", &name]);
        self.channels[channel]["messages"][&name] = json!({ "$ref": component });
        pointer(&["channels", channel, "messages", &name])
    }

    fn extended(&self, mut value: Value, part: Part<'_>) -> Value {
        if let Some(said) = self.driver.extension(part) {
            value[extension::<D>()] = said;
        }
        value
    }

    pub(super) fn into_value(self) -> Value {
        let mut document = json!({
            "servers": self.servers,
            "channels": self.channels,
            "operations": self.operations,
            "components": { "messages": self.messages },
        });
        let mut schemas = self.schemas.finish(&mut document);
        for (name, ours) in self.headers {
            let now = insert(&mut schemas, &name, ours);
            if now != name {
                // A type of the service has the name.
                let messages = document["components"]["messages"].as_object_mut();
                let was = pointer(&["components", "schemas", &name]);
                for message in messages.into_iter().flat_map(|all| all.values_mut()) {
                    if message["headers"]["$ref"] == was {
                        message["headers"]["$ref"] =
                            pointer(&["components", "schemas", &now]).into();
                    }
                }
            }
        }
        document["components"]["schemas"] = schemas.into();
        document
    }
}

// === impl Payload ===

impl Payload<'_> {
    /// For people, and as a key.
    fn name(&self) -> String {
        match (self.schema, self.type_name) {
            (Some(schema), _) => schema.title(),
            (None, Some(name)) => short(name),
            (None, None) => "Message".to_owned(),
        }
    }
}

/// `x-rocketmq`, say.
fn extension<D: Driver>() -> String {
    format!("x-{}", D::SYSTEM)
}

/// The name of a type without the paths: `Vec_Order` of `alloc::vec::Vec<shop::Order>`.
fn short(name: &str) -> String {
    let parts = name.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let parts = parts.filter_map(|part| part.rsplit("::").next());
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    key(&parts.join("_"))
}

/// Under this key, or where something else has it, the next with a number; the key.
fn insert(map: &mut Map<String, Value>, name: &str, value: Value) -> String {
    let mut fits = name.to_owned();
    let mut number = 2;
    while map.get(&fits).is_some_and(|other| *other != value) {
        fits = format!("{name}_{number}");
        number += 1;
    }
    map.insert(fits.clone(), value);
    fits
}

fn merged(mut value: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut value, more) {
        fields.extend(more);
    }
    value
}

fn pointer(path: &[&str]) -> String {
    format!("#/{}", path.join("/"))
}
