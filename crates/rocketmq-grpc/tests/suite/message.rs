//! What a message may hold, and what is refused before it is sent.

use std::time::Duration;

use rocketmq_grpc::{Error, Message};

use crate::{
    listener::take_one,
    site::{Group, Kind, Site},
};

pub(crate) const BODY_MAX: usize = 4 << 20;
/// Of properties, tag and keys together.
const PROPERTIES_MAX: usize = 16 << 10;

/// What a message has beside its topic, in alphabetical order.
struct Parts {
    body: Vec<u8>,
    tag: Option<String>,
    keys: Vec<String>,
    properties: Vec<(String, String)>,
}

pub(crate) fn assert_too_large(error: &Error) {
    assert!(error.is_invalid(), "{error}");
    assert!(error.to_string().contains("4194305 bytes"), "{error}");
}

fn plain() -> Parts {
    Parts {
        body: b"a body".into(),
        tag: None,
        keys: Vec::new(),
        properties: Vec::new(),
    }
}

fn body(body: impl Into<Vec<u8>>) -> Parts {
    let body = body.into();
    Parts { body, ..plain() }
}

fn tag(tag: impl Into<String>) -> Parts {
    let tag = Some(tag.into());
    Parts { tag, ..plain() }
}

fn keys(keys: &[&str]) -> Parts {
    let keys = keys.iter().map(|&it| it.to_owned()).collect();
    Parts { keys, ..plain() }
}

fn property(name: &str, value: &str) -> Parts {
    let properties = vec![(name.to_owned(), value.to_owned())];
    Parts {
        properties,
        ..plain()
    }
}

fn properties(count: usize) -> Parts {
    let properties = (0..count).map(|n| (format!("k{n:03}"), n.to_string()));
    Parts {
        properties: properties.collect(),
        ..plain()
    }
}

/// With so many bytes in a key, a tag and a property together.
fn key_and_tag(bytes: usize) -> Parts {
    let (key, tag) = ("k".repeat(bytes / 4), "t".repeat(bytes / 4));
    let value = "v".repeat(bytes - bytes / 4 * 2 - 1);
    Parts {
        tag: Some(tag),
        keys: vec![key],
        ..property("p", &value)
    }
}

fn of(bytes: usize) -> String {
    "x".repeat(bytes)
}

impl Parts {
    fn of(&self, topic: &str) -> Message {
        let mut message = Message::new(topic, self.body.clone());
        if let Some(tag) = &self.tag {
            message = message.tag(tag);
        }
        for key in &self.keys {
            message = message.key(key);
        }
        for (name, value) in &self.properties {
            message = message.property(name, value);
        }
        message
    }

    /// It is delivered as it was sent.
    async fn comes(self, kind: Kind, as_kind: fn(Message) -> Message) {
        let of_group = match kind {
            Kind::Fifo => Group::ORDERLY,
            _ => Group::PLAIN,
        };
        let (site, topic, group) = Site::with(kind, of_group).await;
        let consumer = site.simple(&topic, &group).await;
        let message = as_kind(self.of(&topic));
        let id = message.id().to_owned();
        site.producer(&topic).await.send(message).await.unwrap();
        let got = take_one(&consumer).await;
        assert_eq!(got.id, id);
        assert!(
            got.body == self.body,
            "another body of {} bytes",
            got.body.len()
        );
        assert_eq!(got.tag, self.tag);
        let (mut keys, mut properties) = (got.keys, Vec::from_iter(got.properties));
        keys.sort();
        properties.sort();
        assert_eq!((keys, properties), (self.keys, self.properties));
    }

    /// It is not sent, whatever the topic takes.
    async fn refused(self) {
        let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
        let producer = site.producer(&topic).await;
        let error = producer.send(self.of(&topic)).await.unwrap_err();
        assert!(error.is_invalid() && !error.is_retryable(), "{error}");
        assert!(!error.may_be_stored(), "{error}");
        // And harms no other.
        producer.send(plain().of(&topic)).await.unwrap();
    }
}

/// A test per line, named after the message.
macro_rules! messages {
    (come { $($(#[$meta:meta])* $name:ident: $parts:expr;)* }) => {
        $($(#[$meta])* #[tokio::test]
        async fn $name() { $parts.comes(Kind::Normal, |it| it).await })*
    };
    (are_refused { $($(#[$meta:meta])* $name:ident: $parts:expr;)* }) => {
        $($(#[$meta])* #[tokio::test]
        async fn $name() { $parts.refused().await })*
    };
}

messages!(come {
    /// MessageBodyContentTest.testMessageBodyContentIsSpace
    a_body_of_a_space_comes: body(" ");
    /// MessageBodyContentTest.testMessageBodyContentIsChinese
    a_chinese_body_comes: body("\u{4e2d}\u{6587}\u{5b57}\u{7b26}");
    /// MessageBodyContentTest.testMessageBodyContentIsEmoji
    an_emoji_body_comes: body("\u{1f631}");

    /// MessageKeyTest.testMessageKeyEquals16KB
    a_key_of_16_kib_comes: keys(&[&of(PROPERTIES_MAX)]);
    /// MessageKeyTest.testMessageKeyContentWithChinese
    a_chinese_key_comes: keys(&["\u{4e2d}\u{6587}\u{5b57}\u{7b26}"]);
    /// MessageKeyTest.testMessageWithMultiKey
    several_keys_come: keys(&["k1", "k2", "k3"]);

    /// MessageTagTest.testMessageTagEquals16KB
    a_tag_of_16_kib_comes: tag(of(PROPERTIES_MAX));
    /// MessageTagTest.testMessageTagContentWithChinese
    a_chinese_tag_comes: tag("\u{4e2d}\u{6587}\u{5b57}\u{7b26}");

    /// MessageUserPropertyTest.testMessageUserPropertyEqualsSize128
    properties_up_to_128_come: properties(128);
    /// MessageUserPropertyTest.testMessageUserPropertyEquals16KB
    a_property_of_16_kib_with_its_name_comes: property("p", &of(PROPERTIES_MAX - 1));
    /// MessageUserPropertyTest.testMessageUserPropertyWithKeyAndTagEquals16KB
    properties_key_and_tag_of_16_kib_together_come: key_and_tag(PROPERTIES_MAX);
    /// MessageUserPropertyTest.testMessageUserPropertyWithKeyAndTagEquals64B
    properties_key_and_tag_of_64_bytes_come: key_and_tag(64);
    /// MessageUserPropertyTest.testSpecialCharProperty
    properties_with_special_characters_come: property("a.b-c_d$e", "!@#$%^&*()_+{}|:\"<>?~");

    /// NormalMessageSizeTest.testNormalMsgSize4M; GrpcBaseIT.testSimpleConsumerSendAndRecvBigMessage
    a_body_of_4_mib_comes: body(vec![b'x'; BODY_MAX]);
    /// NormalMessageSizeTest.testNormalMsgSize4MAndUserProperty16KB
    a_body_of_4_mib_with_16_kib_of_properties_comes: Parts {
        body: vec![b'x'; BODY_MAX],
        ..property("p", &of(PROPERTIES_MAX - 1))
    };
});

messages!(are_refused {
    /// MessageAbnormalTest.sendMsgBodyIsNull, sendMsgBodyIsEmpty
    an_empty_body_is_refused: body("");
    /// MessageAbnormalTest.sendMsgTagIsEmpty (a tag that is null cannot be written here)
    an_empty_tag_is_refused: tag("");

    /// MessageKeyTest.testMessageKeyBeyond16KB
    a_key_beyond_16_kib_is_refused: keys(&[&of(PROPERTIES_MAX + 1)]);
    /// MessageKeyTest.testMessageKeyWithInvisibleCharacter
    an_invisible_character_in_a_key_is_refused: keys(&["a\0"]);

    /// MessageTagTest.testMessageTagBeyond16KB
    a_tag_beyond_16_kib_is_refused: tag(of(PROPERTIES_MAX + 1));
    /// MessageTagTest.testMessageTagWithInvisibleCharacter
    an_invisible_character_in_a_tag_is_refused: tag("a\0");
    /// MessageTagTest.testMessageTagContentWith |
    a_bar_in_a_tag_is_refused: tag("tag|");
    /// MessageTagTest.testMessageUserPropertyAndTagBeyond16KB
    a_property_and_a_tag_beyond_16_kib_are_refused: Parts {
        tag: Some(of(PROPERTIES_MAX)),
        ..property("p", "v")
    };

    /// MessageUserPropertyTest.testMessageUserPropertyBeyondSize128
    properties_beyond_128_are_refused: properties(129);
    /// MessageUserPropertyTest.testMessageUserPropertyBeyond16KB
    a_property_beyond_16_kib_is_refused: property("p", &of(PROPERTIES_MAX));
    /// MessageUserPropertyTest.testMessageUserPropertyWithInvisibleCharacter
    an_invisible_character_in_a_property_is_refused: property("p", "a\0");
    /// MessageUserPropertyTest.testMessageUserPropertyWithInvisibleCharacter
    an_invisible_character_in_the_name_of_a_property_is_refused: property("p\0", "a");
    /// MessageUserPropertyTest.testMessageUserPropertyWithSystemKey
    a_property_of_the_servers_is_refused: property("UNIQ_KEY", "x");
    /// MessageUserPropertyTest.testMessageUserPropertyWithKeyAndTagBeyond16KB
    properties_key_and_tag_beyond_16_kib_together_are_refused: key_and_tag(PROPERTIES_MAX + 1);
});

/// MessageAbnormalTest.sendMsgTopicIsEmpty, sendMsgTopicIsNull
#[tokio::test]
async fn a_message_without_a_topic_is_refused() {
    let (site, topic, _) = Site::with(Kind::Normal, Group::PLAIN).await;
    let producer = site.producer(&topic).await;
    let error = producer.send(plain().of("")).await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
}

// === sizes by type; those of transactions are beside the other transactions ===

async fn too_large(kind: Kind, as_kind: fn(Message) -> Message) {
    let (site, topic, _) = Site::with(kind, Group::PLAIN).await;
    let producer = site.producer(&topic).await;
    let message = as_kind(body(vec![b'x'; BODY_MAX + 1]).of(&topic));
    assert_too_large(&producer.send(message).await.unwrap_err());
}

fn delayed(message: Message) -> Message {
    // Longer than a send takes: what is due when it arrives is not delayed.
    message.delay(Duration::from_secs(3))
}

fn grouped(message: Message) -> Message {
    message.group("g")
}

/// NormalMessageSizeTest.testNormalMsgSize4MAdd1
#[tokio::test]
async fn a_body_beyond_4_mib_is_refused() {
    too_large(Kind::Normal, |it| it).await;
}

/// NormalMessageSizeTest.testDelayMsgSize4M, which sends only. The timer of the real server (5.5.0)
/// reads records of at most 4 MiB and 100 bytes, headers included, and loses what is larger.
#[tokio::test]
async fn a_delayed_body_of_4_mib_is_refused_because_it_would_be_lost() {
    let (site, topic, _) = Site::with(Kind::Delay, Group::PLAIN).await;
    let message = delayed(body(vec![b'x'; BODY_MAX]).of(&topic));
    let producer = site.producer(&topic).await;
    let error = producer.send(message).await.unwrap_err();
    assert!(error.is_invalid() && !error.is_retryable(), "{error}");
    assert!(!error.may_be_stored(), "{error}");
    assert!(error.to_string().contains("never deliver"), "{error}");
}

/// The largest that is not refused, with `texts` bytes of tag, keys and properties.
async fn largest_delayed_comes(parts: Parts, texts: usize) {
    let (site, topic, group) = Site::with(Kind::Delay, Group::PLAIN).await;
    let consumer = site.simple(&topic, &group).await;
    let producer = site.producer(&topic).await;
    let mut size = BODY_MAX - (1 << 10) - texts;
    let sent = loop {
        let message = parts.of(&topic).with_body(vec![b'x'; size]);
        match producer.send(delayed(message)).await {
            Ok(sent) => break sent,
            Err(error) => assert!(error.is_invalid(), "{error}"),
        }
        size -= 1;
    };
    let got = take_one(&consumer).await;
    assert_eq!((got.id, got.body.len()), (sent.message_id, size));
}

#[tokio::test]
async fn the_largest_delayed_body_comes() {
    largest_delayed_comes(plain(), 0).await;
}

#[tokio::test]
async fn the_largest_delayed_body_with_16_kib_of_properties_comes() {
    largest_delayed_comes(key_and_tag(PROPERTIES_MAX), PROPERTIES_MAX).await;
}

#[tokio::test]
async fn the_largest_delayed_body_with_128_properties_comes() {
    largest_delayed_comes(properties(128), 128 * 4).await;
}

/// NormalMessageSizeTest.testDelayMsgSize4MAdd1
#[tokio::test]
async fn a_delayed_body_beyond_4_mib_is_refused() {
    too_large(Kind::Delay, delayed).await;
}

/// NormalMessageSizeTest.testFifoMsgSize4M
#[tokio::test]
async fn an_ordered_body_of_4_mib_comes() {
    body(vec![b'x'; BODY_MAX]).comes(Kind::Fifo, grouped).await;
}

/// NormalMessageSizeTest.testFifoMsgSize4MAdd1
#[tokio::test]
async fn an_ordered_body_beyond_4_mib_is_refused() {
    too_large(Kind::Fifo, grouped).await;
}

/// NormalMessageSizeTest.testFifoMsgSize4MAndUserProperty16KB
#[tokio::test]
async fn an_ordered_body_of_4_mib_with_16_kib_of_properties_comes() {
    let parts = Parts {
        body: vec![b'x'; BODY_MAX],
        ..property("p", &of(PROPERTIES_MAX - 1))
    };
    parts.comes(Kind::Fifo, grouped).await;
}
