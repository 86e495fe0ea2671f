//! Receipt handles of Apache RocketMQ, where what it returns has to be mended.
//!
//! Measured on 5.5.0, with the proxy in local mode. To clients handles are opaque: what does not look
//! like one of Apache RocketMQ is left alone.

/// Fields of a handle, with a space in between: start offset, time of the receive, length of the
/// lease, revive queue, kind of topic, broker, queue, offset, place in the log.
const START_OFFSET: usize = 0;
const BROKER: usize = 5;
const OFFSET: usize = 7;
const LOG_PLACE: usize = 8;
/// The kind of the topic and the broker's name may have letters.
const NUMBERS: [usize; 7] = [START_OFFSET, 1, 2, 3, 6, OFFSET, LOG_PLACE];

/// The handle that an extension returned in place of `old`, as it should be.
///
/// - It has 0 as the message's place in the log, and the place behind it, from which the next
///   extension drops it: a dead letter with such a handle moves the first message of the log, whosever
///   it is, and has the right one vanish.
/// - It starts at the first message of the batch, as the old one does. But in groups without order
///   the broker knows an extended message by itself: settlements with such a handle are answered OK
///   and not kept, and the message comes again.
pub(super) fn after_extension(old: &str, new: String, orderly: bool) -> String {
    let (Some(was), Some(mut fields)) = (fields(old), fields(&new)) else {
        return new;
    };
    if was[BROKER..=OFFSET] != fields[BROKER..=OFFSET] {
        return new;
    }
    fields.truncate(LOG_PLACE);
    fields.push(was[LOG_PLACE]);
    if !orderly {
        fields[START_OFFSET] = fields[OFFSET];
    }
    fields.join(" ")
}

/// At least those above.
fn fields(handle: &str) -> Option<Vec<&str>> {
    let fields: Vec<_> = handle.split(' ').collect();
    let numeric = |at: usize| fields.get(at).is_some_and(|it| it.parse::<u64>().is_ok());
    NUMBERS.into_iter().all(numeric).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "5 1795436087558 10000 2 0 broker-a 0 7 274869";

    fn mended(new: &str, orderly: bool) -> String {
        after_extension(OLD, new.to_owned(), orderly)
    }

    #[test]
    fn an_extended_message_starts_at_itself_and_keeps_its_place_in_the_log() {
        let by_local_proxy = "5 1795436090640 15000 3 0 broker-a 0 7 0 274869";
        let good = "7 1795436090640 15000 3 0 broker-a 0 7 274869";
        assert_eq!(mended(by_local_proxy, false), good);
        assert_eq!(mended(good, false), good, "by a proxy in cluster mode");
        let again = "7 1795436090665 15000 3 0 broker-a 0 7 0 274869";
        let good_again = "7 1795436090665 15000 3 0 broker-a 0 7 274869";
        assert_eq!(after_extension(good, again.to_owned(), false), good_again);
    }

    #[test]
    fn in_an_orderly_group_a_message_stays_one_of_its_batch() {
        let new = "5 1795436090640 15000 3 0 broker-a 0 7 0 274869";
        let good = "5 1795436090640 15000 3 0 broker-a 0 7 274869";
        assert_eq!(mended(new, true), good);
    }

    #[test]
    fn what_is_no_handle_of_apache_rocketmq_or_of_another_message_is_left_alone() {
        for new in [
            "",
            "h",
            "5 1 2 3 0 broker-a 0 7",
            "five 1 2 3 0 broker-a 0 7 5",
            "5 1 2 3 0 broker-a 0 7 five",
            "5 1 2 3 0 broker-a 0  7",
            "5 -1 2 3 0 broker-a 0 7 5",
            "5 1 2 3 0 broker-b 0 7 0 5",
            "5 1 2 3 0 broker-a 0 8 0 5",
        ] {
            for orderly in [false, true] {
                assert_eq!(mended(new, orderly), new);
            }
        }
        let new = "5 1 2 3 0 broker-a 0 7 0 5";
        for old in ["", "h", "5 1 2 3 0 broker-a 0 7"] {
            assert_eq!(after_extension(old, new.to_owned(), false), new);
        }
    }
}
