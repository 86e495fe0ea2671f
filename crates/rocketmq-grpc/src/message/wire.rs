//! A message as it is sent.

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use flate2::{Compression, write::ZlibEncoder};
use rocketmq_proto::v2 as pb;

use super::Message;
use crate::{Error, convert};

/// Since 1970, of the last second of the year 9999: the protocol's time ends with it.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);
/// Of a message in the store, beside its texts: with topic and id, 150 to 170 were measured.
const STORED_OVERHEAD_BYTES: usize = 256;
/// The same of a delayed message, with room to spare: its stored record has the names that the timer
/// gives it, and 422 bytes beside the body were measured of one with few texts.
const DELAYED_OVERHEAD_BYTES: usize = 1 << 10;
/// Larger bodies are compressed on a thread where that may take its time.
const COMPRESSED_INLINE_MAX: usize = 64 << 10;

/// Makes messages ready to be sent.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    pub(crate) topic: pb::Resource,
    pub(crate) message_type: pb::MessageType,
    pub(crate) born_host: &'a str,
    /// Larger bodies are compressed.
    pub(crate) compress_above: Option<usize>,
}

impl Packer<'_> {
    /// The time of birth is left out: it is that of each attempt.
    pub(crate) async fn pack(&self, message: &Message) -> Result<pb::Message, Error> {
        let (body, encoding) = match self.compress_above {
            Some(above) if message.body.len() > above => compress(&message.body).await?,
            Some(_) | None => (message.body.clone(), pb::Encoding::Identity),
        };
        let time = message
            .deliver_at
            .map(|it| convert::proto_time(it.min(time_max())));
        Ok(pb::Message {
            topic: Some(self.topic.clone()),
            user_properties: message.properties.clone(),
            system_properties: Some(pb::SystemProperties {
                tag: message.tag.clone(),
                keys: message.keys.clone(),
                message_id: message.id.clone(),
                body_digest: Some(digest(&body)),
                body_encoding: encoding.into(),
                message_type: self.message_type.into(),
                born_host: self.born_host.to_owned(),
                delivery_timestamp: time,
                message_group: message.group.clone(),
                lite_topic: message.lite_topic.clone(),
                priority: message.priority.and_then(|it| i32::try_from(it).ok()),
                ..Default::default()
            }),
            body,
        })
    }

    /// What the message takes in the store, at most, with a body of so many bytes as it is sent.
    ///
    /// The limit of a batch is for that; and that of what a delayed message may be: the timer of the
    /// server has one buffer for it.
    pub(crate) fn stored_size(&self, message: &Message, body: usize) -> usize {
        let overhead = match self.message_type {
            pb::MessageType::Delay => DELAYED_OVERHEAD_BYTES,
            _ => STORED_OVERHEAD_BYTES,
        };
        let properties = message.properties.iter();
        let properties = properties.map(|(name, value)| name.len() + value.len() + 2);
        let texts = self.topic.name.len() + self.born_host.len() + message.id.len();
        let tag = message.tag.as_ref().map_or(0, String::len);
        let keys = message.keys.iter().map(|it| it.len() + 1);
        overhead + body + texts + tag + keys.sum::<usize>() + properties.sum::<usize>()
    }
}

/// The latest time that the protocol can express.
pub(super) fn time_max() -> SystemTime {
    UNIX_EPOCH + LAST_SECOND
}

/// Of the bytes on the wire, written as Java does: without leading zeroes.
fn digest(body: &[u8]) -> pb::Digest {
    pb::Digest {
        r#type: pb::DigestType::Crc32.into(),
        checksum: format!("{:X}", crc32fast::hash(body)),
    }
}

/// In the format of zlib, although the protocol's name for it is GZIP: clients of RocketMQ 5 look at
/// the first bytes, those of RocketMQ 4 take everything for zlib.
async fn compress(body: &Bytes) -> Result<(Bytes, pb::Encoding), Error> {
    let compressed = if body.len() > COMPRESSED_INLINE_MAX {
        let body = body.clone();
        let task = tokio::task::spawn_blocking(move || zlib(&body));
        task.await.map_err(std::io::Error::other).flatten()
    } else {
        zlib(body)
    };
    let compressed = compressed
        .map_err(|error| Error::invalid(format!("the body cannot be compressed: {error}")))?;
    Ok(if compressed.len() < body.len() {
        (compressed.into(), pb::Encoding::Gzip)
    } else {
        (body.clone(), pb::Encoding::Identity)
    })
}

fn zlib(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::decode;

    async fn packed(body: impl Into<Bytes>) -> pb::Message {
        let packer = Packer {
            topic: pb::Resource::default(),
            message_type: pb::MessageType::Normal,
            born_host: "",
            compress_above: Some(1000),
        };
        packer.pack(&Message::new("t", body)).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_compressed_is_zlib_labelled_gzip_with_the_digest_of_the_wire() {
        for size in [1001, COMPRESSED_INLINE_MAX + 1] {
            let message = packed(vec![7; size]).await;
            let system = message.system_properties.unwrap();
            assert_eq!(system.body_encoding(), pb::Encoding::Gzip);
            assert_eq!(message.body[0], 0x78, "zlib");
            assert!(message.body.len() < size / 10);
            let digest = system.body_digest.clone().unwrap();
            assert_eq!(digest.r#type(), pb::DigestType::Crc32);
            let plain = decode(message.body, Some(&digest), system.body_encoding).unwrap();
            assert_eq!(plain, vec![7; size]);
        }
    }

    #[tokio::test]
    async fn what_is_small_or_does_not_shrink_is_sent_as_it_is() {
        let noise: Vec<u8> = std::iter::repeat_with(crate::backoff::random_u64)
            .take(200)
            .flat_map(u64::to_le_bytes)
            .collect();
        for body in [vec![7; 1000], noise] {
            let message = packed(body.clone()).await;
            let system = message.system_properties.unwrap();
            assert_eq!(system.body_encoding(), pb::Encoding::Identity);
            assert_eq!(message.body, body);
            decode(
                message.body,
                system.body_digest.as_ref(),
                system.body_encoding,
            )
            .unwrap();
        }
    }

    #[test]
    fn a_digest_is_upper_case_and_unpadded() {
        assert_eq!(digest(b"abc").checksum, "352441C2");
        let body = (0_u16..)
            .map(u16::to_be_bytes)
            .find(|it| crc32fast::hash(it) < 0x1000_0000)
            .unwrap();
        assert!(digest(&body).checksum.len() < 8);
    }

    #[tokio::test]
    async fn a_time_beyond_the_protocol_is_its_last_and_one_before_it_its_first() {
        let packer = Packer {
            topic: pb::Resource::default(),
            message_type: pb::MessageType::Delay,
            born_host: "",
            compress_above: None,
        };
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        let past = UNIX_EPOCH - Duration::from_secs(1);
        for (message, seconds) in [
            (Message::new("t", "b").delay(Duration::MAX), 253_402_300_799),
            (Message::new("t", "b").deliver_at(far), 253_402_300_799),
            (Message::new("t", "b").deliver_at(past), 0),
        ] {
            let packed = packer.pack(&message).await.unwrap();
            let time = packed.system_properties.unwrap().delivery_timestamp;
            assert_eq!(time.unwrap().seconds, seconds);
        }
    }
}
