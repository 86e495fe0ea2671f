//! Bodies as they come: checked against their digest, then decompressed.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use md5::{Digest as _, Md5};
use rocketmq_proto::v2::{Digest, DigestType, Encoding};

use crate::{Error, hex};

/// Largest body after decompression: what is larger is an attack or a mistake.
const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;

/// The body as it was before compression, or why it cannot be trusted.
pub(crate) fn decode(body: Bytes, digest: Option<&Digest>, encoding: i32) -> Result<Bytes, Error> {
    // The digest is that of the bytes on the wire.
    if let Some(digest) = digest {
        check(&body, digest)?;
    }
    if encoding == Encoding::Gzip as i32 {
        decompress(&body)
    } else {
        Ok(body)
    }
}

/// Kinds of digest that this client does not compute pass, as in the official clients.
fn check(body: &[u8], digest: &Digest) -> Result<(), Error> {
    let found = match DigestType::try_from(digest.r#type) {
        Ok(DigestType::Md5) => {
            let md5 = Md5::digest(body);
            // Every message comes here: text is made of it only if somebody reads it.
            if is_hex_of(&digest.checksum, &md5) {
                return Ok(());
            }
            hex::of_bytes(&md5)
        }
        // Without leading zeroes: this is how Java writes it.
        Ok(DigestType::Crc32) => format!("{:X}", crc32fast::hash(body)),
        Ok(DigestType::Sha1 | DigestType::Unspecified) | Err(_) => return Ok(()),
    };
    if found.eq_ignore_ascii_case(&digest.checksum) {
        return Ok(());
    }
    Err(Error::corrupted(format!(
        "the body has digest {found}, its sender said {:?}",
        digest.checksum
    )))
}

/// Servers call every compression GZIP, so the first bytes decide.
fn decompress(body: &[u8]) -> Result<Bytes, Error> {
    let mut plain = Vec::new();
    let limit = DECOMPRESSED_BYTES_MAX + 1;
    let result = match body {
        [0x1f, 0x8b, ..] => GzDecoder::new(body).take(limit).read_to_end(&mut plain),
        [0x78, ..] => ZlibDecoder::new(body).take(limit).read_to_end(&mut plain),
        [0x04, 0x22, 0x4d, 0x18, ..] => return Err(unsupported("LZ4")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(unsupported("zstd")),
        _ => return Err(unsupported("an unknown method")),
    };
    if let Err(error) = result {
        return Err(Error::corrupted(format!(
            "the body cannot be decompressed: {error}"
        )));
    }
    if plain.len() as u64 > DECOMPRESSED_BYTES_MAX {
        return Err(Error::corrupted(format!(
            "the body has more than {DECOMPRESSED_BYTES_MAX} bytes when decompressed"
        )));
    }
    Ok(plain.into())
}

fn unsupported(method: &str) -> Error {
    Error::corrupted(format!(
        "the body is compressed with {method}, gzip and zlib are supported"
    ))
}

/// Whether the text is the bytes in hexadecimal digits of either case.
fn is_hex_of(text: &str, bytes: &[u8]) -> bool {
    let text = text.as_bytes();
    let digit = |at: u8| char::from(at).to_digit(16);
    text.len() == bytes.len() * 2
        && text.chunks_exact(2).zip(bytes).all(|(pair, byte)| {
            digit(pair[0]) == Some(u32::from(byte >> 4))
                && digit(pair[1]) == Some(u32::from(byte & 0xf))
        })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write};

    use super::*;

    fn digest(kind: DigestType, checksum: &str) -> Digest {
        Digest {
            r#type: kind.into(),
            checksum: checksum.to_owned(),
        }
    }

    fn plain(body: &'static [u8], digest: &Digest) -> Result<Bytes, Error> {
        decode(
            Bytes::from_static(body),
            Some(digest),
            Encoding::Identity.into(),
        )
    }

    #[test]
    fn digests_are_compared_as_java_writes_them() {
        let md5 = digest(DigestType::Md5, "900150983CD24FB0D6963F7D28E17F72");
        assert_eq!(plain(b"abc", &md5).unwrap(), "abc");
        let error = plain(b"abd", &md5).unwrap_err().to_string();
        assert!(error.contains(&md5.checksum), "{error}");
        let lower = digest(DigestType::Md5, &md5.checksum.to_lowercase());
        assert_eq!(plain(b"abc", &lower).unwrap(), "abc");
        for not_hex in ["", "90015098", "G00150983CD24FB0D6963F7D28E17F72", "é"] {
            assert!(plain(b"abc", &digest(DigestType::Md5, not_hex)).is_err());
        }
        assert_eq!(
            plain(b"abc", &digest(DigestType::Crc32, "352441C2")).unwrap(),
            "abc"
        );
        // The CRC of this one begins with a zero.
        let body: &[u8] = &(0_u16..)
            .map(u16::to_be_bytes)
            .find(|it| crc32fast::hash(it) < 0x1000_0000)
            .unwrap();
        let checksum = digest(DigestType::Crc32, &format!("{:X}", crc32fast::hash(body)));
        assert!(checksum.checksum.len() < 8);
        decode(Bytes::copy_from_slice(body), Some(&checksum), 1).unwrap();
        assert_eq!(
            plain(b"abc", &digest(DigestType::Unspecified, "")).unwrap(),
            "abc"
        );
    }

    #[test]
    fn gzip_and_zlib_are_told_apart_by_their_first_bytes() {
        let mut gzip = write::GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(b"hello").unwrap();
        let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(b"hello").unwrap();
        for wire in [gzip.finish().unwrap(), zlib.finish().unwrap()] {
            let md5 = digest(DigestType::Md5, &hex::of_bytes(&Md5::digest(&wire)));
            let body = Bytes::from(wire.clone());
            assert_eq!(
                decode(body, Some(&md5), Encoding::Gzip.into()).unwrap(),
                "hello"
            );
            let cut = Bytes::copy_from_slice(&wire[..wire.len() - 6]);
            assert!(decode(cut, None, Encoding::Gzip.into()).is_err());
        }
    }

    #[test]
    fn other_methods_are_named() {
        let zstd = Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0]);
        let error = decode(zstd, None, Encoding::Gzip.into()).unwrap_err();
        assert!(error.to_string().contains("zstd"), "{error}");
        assert!(decode(Bytes::new(), None, Encoding::Gzip.into()).is_err());
    }
}
