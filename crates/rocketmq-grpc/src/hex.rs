//! Hexadecimal digits, without the machinery of formatting: every request and message has some.

/// Appends the lowest so many digits.
pub(crate) fn push(text: &mut String, number: u64, digits: u32, upper: bool) {
    let letter = if upper { b'A' } else { b'a' };
    for place in (0..digits).rev() {
        // Of four bits, the cast keeps all.
        let digit = (number >> (place * 4) & 0xf) as u8;
        let digit = match digit {
            0..10 => b'0' + digit,
            _ => letter + digit - 10,
        };
        text.push(char::from(digit));
    }
}

/// Two digits for each byte, in capitals.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        push(&mut text, u64::from(*byte), 2, true);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_format() {
        let mut text = String::new();
        for number in [0, 9, 10, 0xabcd_ef01_2345, u64::MAX] {
            push(&mut text, number, 12, true);
            let low = number & 0xffff_ffff_ffff;
            assert_eq!(text, format!("{low:012X}"));
            text.clear();
            push(&mut text, number, 16, false);
            assert_eq!(text, format!("{number:016x}"));
            text.clear();
        }
        assert_eq!(of_bytes(&[0x0f, 0xa0]), "0FA0");
    }
}
