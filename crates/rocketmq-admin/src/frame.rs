//! Frames of the remoting protocol, with JSON headers.
//!
//! `u32 length of what follows | u8 header type | u24 header length | header | body`, big endian.
//! The binary header type is left out: a server answers in it only to those who speak it.

use std::{collections::BTreeMap, error::Error, fmt};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The servers' own limit.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

const LENGTH: usize = 4;
const JSON: u8 = 0;
const RESPONSE: i32 = 1;

/// Of the 5.5.0 server: the newest answers, and strict JSON where it is to be had.
const VERSION: i32 = 513;

/// One request or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    pub(crate) code: i32,
    #[serde(default, skip_deserializing)]
    language: Language,
    #[serde(default)]
    pub(crate) version: i32,
    #[serde(default)]
    pub(crate) opaque: i32,
    #[serde(default)]
    flag: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remark: Option<String>,
    /// A null value is as good as none.
    #[serde(default)]
    pub(crate) ext_fields: Option<BTreeMap<String, Option<String>>>,
}

/// What servers say of themselves is of no interest, and no reason to fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Language {
    #[default]
    Rust,
}

/// Bytes that are no frame; the connection cannot be used any more.
#[derive(Debug)]
pub(crate) enum FrameError {
    Length(u32),
    HeaderType(u8),
    HeaderLength { header: usize, frame: usize },
    Header(serde_json::Error),
}

// === impl Frame ===

impl Frame {
    pub(crate) fn request(code: i32) -> Self {
        Self {
            header: Header {
                code,
                language: Language::Rust,
                version: VERSION,
                opaque: 0,
                flag: 0,
                remark: None,
                ext_fields: None,
            },
            body: Bytes::new(),
        }
    }

    pub(crate) fn field(mut self, name: &str, value: impl Into<String>) -> Self {
        let fields = self.header.ext_fields.get_or_insert_default();
        fields.insert(name.to_owned(), Some(value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn is_response(&self) -> bool {
        self.header.flag & RESPONSE != 0
    }

    pub(crate) fn ext(&self, name: &str) -> Option<&str> {
        self.header.ext_fields.as_ref()?.get(name)?.as_deref()
    }

    /// # Errors
    ///
    /// The frame is longer than a server takes.
    pub(crate) fn encode(&self) -> Result<Bytes, FrameError> {
        let header = serde_json::to_vec(&self.header).map_err(FrameError::Header)?;
        let length = LENGTH + header.len() + self.body.len();
        let length = match u32::try_from(length) {
            Ok(it) if length <= FRAME_BYTES_MAX => it,
            it => return Err(FrameError::Length(it.unwrap_or(u32::MAX))),
        };
        let mut out = BytesMut::with_capacity(LENGTH + length as usize);
        out.put_u32(length);
        out.put_u8(JSON);
        out.put_uint(header.len() as u64, 3);
        out.put_slice(&header);
        out.put_slice(&self.body);
        Ok(out.freeze())
    }

    /// Takes one whole frame from the front, none if more bytes must come first.
    ///
    /// Reserves nothing for what a length only announces: memory follows the bytes that came.
    pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(start) = buffer.first_chunk::<{ 2 * LENGTH }>() else {
            // A length that can never be right is told without waiting for the rest of it.
            return match buffer.first_chunk::<LENGTH>() {
                Some(length) => checked(u32::from_be_bytes(*length)).map(|_| None),
                None => Ok(None),
            };
        };
        let [a, b, c, d, kind, x, y, z] = *start;
        let length = checked(u32::from_be_bytes([a, b, c, d]))?;
        if kind != JSON {
            return Err(FrameError::HeaderType(kind));
        }
        let header = u32::from_be_bytes([0, x, y, z]) as usize;
        if header > length - LENGTH {
            return Err(FrameError::HeaderLength {
                header,
                frame: length,
            });
        }
        if buffer.len() < LENGTH + length {
            return Ok(None);
        }
        let mut frame = buffer.split_to(LENGTH + length).freeze();
        frame.advance(2 * LENGTH);
        let header = frame.split_to(header);
        Ok(Some(Self {
            header: serde_json::from_slice(&header).map_err(FrameError::Header)?,
            body: frame,
        }))
    }
}

fn checked(length: u32) -> Result<usize, FrameError> {
    match usize::try_from(length) {
        Ok(it) if (LENGTH..=FRAME_BYTES_MAX).contains(&it) => Ok(it),
        _ => Err(FrameError::Length(length)),
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(
                f,
                "a frame of {length} bytes, where {LENGTH} to {FRAME_BYTES_MAX} are possible"
            ),
            Self::HeaderType(kind) => write!(f, "a header of type {kind}, which is not JSON"),
            Self::HeaderLength { header, frame } => {
                write!(f, "a header of {header} bytes in a frame of {frame}")
            }
            Self::Header(_) => f.write_str("a header that is not understood"),
        }
    }
}

impl Error for FrameError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Header(error) => Some(error),
            Self::Length(_) | Self::HeaderType(_) | Self::HeaderLength { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut buffer = BytesMut::from(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = Frame::decode(&mut buffer)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn a_real_answer_is_read() {
        let header = br#"{"code":0,"extFields":{"totalGroupNum":"10","x":null},"flag":1,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":513}"#;
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(4 + header.len() + 2).unwrap().to_be_bytes());
        bytes.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
        bytes.extend(header);
        bytes.extend(b"{}");
        let frames = decode_all(&bytes).unwrap();
        let [frame] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert!(frame.is_response());
        assert_eq!((frame.header.code, frame.header.opaque), (0, 7));
        assert_eq!(frame.ext("totalGroupNum"), Some("10"));
        assert_eq!((frame.ext("x"), &frame.body[..]), (None, &b"{}"[..]));
    }

    #[test]
    fn lengths_that_can_never_be_right_are_refused_at_once() {
        for length in [0, 3, 1 + (16 << 20), u32::MAX] {
            let error = decode_all(&u32::to_be_bytes(length)).unwrap_err();
            assert!(matches!(error, FrameError::Length(it) if it == length));
        }
        let error = decode_all(&[0, 0, 0, 8, 0, 0, 0, 5]).unwrap_err();
        assert!(matches!(error, FrameError::HeaderLength { .. }));
        let error = decode_all(&[0, 0, 0, 8, 1, 0, 0, 4]).unwrap_err();
        assert!(matches!(error, FrameError::HeaderType(1)));
    }

    #[test]
    fn a_frame_over_the_limit_is_not_sent() {
        let frame = Frame::request(1).body(vec![0; FRAME_BYTES_MAX]);
        assert!(matches!(frame.encode(), Err(FrameError::Length(_))));
    }

    prop_compose! {
        fn frames()(
            code: i32,
            opaque: i32,
            remark in proptest::option::of("[a-z\"é]{0,6}"),
            fields in proptest::collection::btree_map("[a-z\"]{0,4}", proptest::option::of("[a-z\"é]{0,6}"), 0..4),
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) -> Frame {
            let mut frame = Frame::request(code).body(body);
            frame.header.opaque = opaque;
            frame.header.remark = remark;
            frame.header.ext_fields = Some(fields);
            frame
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn what_is_encoded_is_decoded_however_it_is_cut(
            frames in proptest::collection::vec(frames(), 1..4),
            step in 1_usize..64,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|it| it.encode().unwrap()).collect();
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(buffer.is_empty());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn rubbish_is_no_panic_and_no_memory(
            // Lengths of frame and header that might be right, so that what follows is looked at.
            head in proptest::option::weighted(0.8, (
                prop_oneof![0..600_u32, 0..=20_u32 << 20],
                prop_oneof![0..600_u32, any::<u32>()],
            )),
            rest in proptest::collection::vec(any::<u8>(), 0..512),
        ) {
            let head = head.map(|(frame, header)| [frame.to_be_bytes(), header.to_be_bytes()]);
            let mut bytes: Vec<u8> = head.iter().flatten().flatten().copied().collect();
            bytes.extend(rest);
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::decode(&mut buffer) {}
            prop_assert!(buffer.capacity() <= bytes.len().max(64) * 2);
        }

        #[test]
        fn a_damaged_frame_is_no_panic(frame in frames(), at: prop::sample::Index, byte: u8) {
            let mut bytes = frame.encode().unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for frame in decode_all(&bytes).into_iter().flatten() {
                prop_assert!(frame.body.len() <= bytes.len());
            }
        }
    }
}
