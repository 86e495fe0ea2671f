//! Which broker takes a message.
//!
//! Messages of a group must be stored in one queue to have an order. Its number is computed as the
//! official Java and Go clients do, so that producers in these languages agree.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use crate::route::{Broker, Route};

const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The broker that has the queue of a message group; none if no queue is writable.
pub(super) fn of_group<'a>(route: &'a Route, group: &str) -> Option<&'a Broker> {
    let queues: Vec<_> = route.writable_queues().collect();
    let at = index(group, queues.len())?;
    queues.get(at).copied()
}

fn index(group: &str, queues: usize) -> Option<usize> {
    let queues = i64::try_from(queues).ok().filter(|it| *it > 0)?;
    let mut hasher = SipHasher24::new_with_key(&KEY);
    hasher.write(group.as_bytes());
    // Java's floorMod of a signed number.
    let hash = hasher.finish().cast_signed();
    usize::try_from(hash.rem_euclid(queues)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_groups_go_to_the_queues_that_java_and_go_choose() {
        let cases: [(&str, &[(usize, usize)]); 6] = [
            ("fifoGroup001", &[(8, 5), (3, 2), (6, 5)]),
            ("order-1", &[(8, 7), (3, 0), (6, 3)]),
            ("a", &[(8, 2), (3, 1)]),
            ("", &[(8, 1), (3, 0)]),
            ("group", &[(8, 7), (3, 2), (6, 5)]),
            ("foo哈哈😄2222哈哈", &[(8, 2)]),
        ];
        for (group, expected) in cases {
            for (queues, at) in expected {
                assert_eq!(index(group, *queues), Some(*at), "{group:?} of {queues}");
            }
        }
        assert_eq!(index("a", 0), None);
    }
}
