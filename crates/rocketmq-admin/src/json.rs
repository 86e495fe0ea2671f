//! What brokers call JSON: keys of objects may be numbers or whole objects.
//!
//! `{"offsetTable":{{"brokerName":"a","queueId":0}:{"minOffset":0}}}` and `{0:"10.0.0.1:10911"}` are
//! what the servers' Java library writes for maps whose keys are no strings. [`normal`] writes such
//! keys as strings that hold the key's text, in one pass and without recursion, and serde does the
//! rest: a key that is an object is read by [`from_str`] once more.

use serde::de::DeserializeOwned;

/// Reads a body of a broker.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(&normal(bytes))
}

/// Reads a key of a map that was an object.
pub(crate) fn from_str<T: DeserializeOwned>(key: &str) -> serde_json::Result<T> {
    from_slice(key.as_bytes())
}

/// Where in an object or array the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In an object, where a key comes next.
    Key,
    /// In an object, behind a key.
    Value,
    /// In an array.
    Array,
}

/// Makes every key a string. What was no JSON for other reasons is left for serde to refuse.
///
/// At most four times as long as the input: a key of one backslash becomes two, in quotes.
fn normal(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len() + input.len() / 4);
    let mut places: Vec<Place> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = input.get(at) {
        let length = if byte.is_ascii_whitespace() {
            out.push(byte);
            1
        } else if byte == b'"' {
            let length = string(&input[at..]);
            out.extend_from_slice(&input[at..at + length]);
            if let Some(place @ Place::Key) = places.last_mut() {
                *place = Place::Value;
            }
            length
        } else if let Some(place @ Place::Key) = places.last_mut()
            && byte != b'}'
        {
            *place = Place::Value;
            let length = key(&input[at..]);
            quote(&input[at..at + length], &mut out);
            length
        } else {
            match byte {
                b'{' => places.push(Place::Key),
                b'[' => places.push(Place::Array),
                b'}' | b']' => {
                    places.pop();
                }
                b',' => {
                    if let Some(place @ Place::Value) = places.last_mut() {
                        *place = Place::Key;
                    }
                }
                _ => {}
            }
            out.push(byte);
            1
        };
        at += length;
    }
    out
}

/// Length of the string at the front, with its quotes.
fn string(input: &[u8]) -> usize {
    let mut escaped = false;
    for (at, &byte) in input.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    input.len()
}

/// Length of the key at the front, which is no string: a bare word, or an object or array.
fn key(input: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = input.get(at) {
        at += match byte {
            b'"' => string(&input[at..]),
            b'{' | b'[' => {
                depth += 1;
                1
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
                1
            }
            b':' | b',' | b'}' | b']' if depth == 0 => break,
            _ => 1,
        };
    }
    // Whatever stands there, the caller goes on.
    at.max(1)
}

fn quote(key: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in key.trim_ascii_end() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(input: &str) -> String {
        String::from_utf8(normal(input.as_bytes())).unwrap()
    }

    #[test]
    fn numbers_as_keys_are_read() {
        let got: BTreeMap<u64, String> =
            from_slice(br#"{0:"127.0.0.1:10911",1 : "b", "2":"c"}"#).unwrap();
        assert_eq!(
            got.into_iter().collect::<Vec<_>>(),
            [
                (0, "127.0.0.1:10911".to_owned()),
                (1, "b".to_owned()),
                (2, "c".to_owned())
            ]
        );
    }

    #[test]
    fn objects_as_keys_are_read() {
        let body = br#"{"a":{{"brokerName":"b}\"","queueId":2}:{"max":1},{"brokerName":"c","queueId":0}:{}}}"#;
        let got: BTreeMap<String, BTreeMap<String, Value>> = from_slice(body).unwrap();
        let keys: Vec<Value> = got["a"].keys().map(|key| from_str(key).unwrap()).collect();
        assert_eq!(
            keys,
            [
                json!({"brokerName": "b}\"", "queueId": 2}),
                json!({"brokerName": "c", "queueId": 0})
            ]
        );
        assert_eq!(got["a"].values().next(), Some(&json!({"max": 1})));
    }

    #[test]
    fn keys_in_keys_are_read() {
        let got: BTreeMap<String, i32> = from_slice(br#"{{0:{1:"x"}}:5}"#).unwrap();
        let (key, value) = got.into_iter().next().unwrap();
        assert_eq!(value, 5);
        let inner: BTreeMap<String, Value> = from_str(&key).unwrap();
        assert_eq!(inner["0"], json!({"1": "x"}));
    }

    #[test]
    fn json_is_left_as_it_is() {
        for same in [
            r#"{}"#,
            r#"{"a":[1,{"b":"{0:1}"},"]"],"c":{"d":null}}"#,
            r#" [ { "a" : { } } , [ ] , 1e9 ] "#,
            r#""text""#,
        ] {
            assert_eq!(text(same), same);
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let whole = r#"{"a":{{"b":"c"}:{"d":[0]},1:2}}"#;
        assert!(from_slice::<Value>(whole.as_bytes()).is_ok());
        for end in 0..whole.len() {
            assert!(
                from_slice::<Value>(&whole.as_bytes()[..end]).is_err(),
                "{end}"
            );
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        for open in ["{", "[", "{1:", "{\"a\":"] {
            let deep = open.repeat(200_000);
            assert!(from_slice::<Value>(deep.as_bytes()).is_err());
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\{}:,é\n]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z\"\\\\{]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn every_json_value_is_read_as_serde_reads_it(value in values()) {
            let text = value.to_string();
            prop_assert_eq!(normal(text.as_bytes()), text.as_bytes());
        }

        #[test]
        fn any_value_can_be_a_key(key in values(), value in values()) {
            prop_assume!(!key.is_string());
            let body = format!("{{{key}:{value}}}");
            let got: BTreeMap<String, Value> = from_slice(body.as_bytes()).unwrap();
            prop_assert_eq!(from_str::<Value>(got.keys().next().unwrap()).unwrap(), key);
            prop_assert_eq!(got.values().next().unwrap(), &value);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn rubbish_is_no_panic_and_bounded(text in r#"[\[\]{}:,"\\0-9a-z \n]{0,200}"#) {
            let out = normal(text.as_bytes());
            prop_assert!(out.len() <= 4 * text.len());
            let _ = from_slice::<Value>(text.as_bytes());
        }

        #[test]
        fn bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(normal(&bytes).len() <= 4 * bytes.len());
            let _ = from_slice::<Value>(&bytes);
        }
    }
}
