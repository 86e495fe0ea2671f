//! Where the dev broker's answer is another one on purpose.

use super::recording::Recording;

/// The real server takes any handle that it can read: it settles nothing, or makes a second
/// delivery, and says OK. Who does that by mistake should see it here.
const MISTAKE: &str = "the real server hides a mistake";
const NO_LITE: &str = "lite topics cannot be consumed here";
/// The recorded server creates them; one in production has autoCreateSubscriptionGroup off.
const UNKNOWN_GROUP: &str = "a strict broker creates no group";

/// Part, step, and why.
const ALLOWED: [(&str, &str, &str); 19] = [
    ("ack", "of another group", MISTAKE),
    ("ack", "of an unknown group", MISTAKE),
    ("change", "of another group", MISTAKE),
    ("change", "of an unknown group", MISTAKE),
    ("change", "after the ack", MISTAKE),
    ("dead letter", "the same again", MISTAKE),
    ("dead letter", "after the ack", MISTAKE),
    ("dead letter", "of another topic", MISTAKE),
    ("dead letter", "of another group", MISTAKE),
    ("dead letter", "of an unknown topic", MISTAKE),
    ("dead letter", "of an unknown group", MISTAKE),
    ("lapse", "a lapsed handle to the dead letters", MISTAKE),
    ("fifo: handed back", "a acks what it handed back", MISTAKE),
    ("fifo: empty attempt id", "a acks the first three", MISTAKE),
    (
        "replaced handle",
        "ack of its old handle after that",
        MISTAKE,
    ),
    ("receive: queues", "an unknown group", UNKNOWN_GROUP),
    (
        "unimplemented",
        "lite subscription to a topic of another type",
        NO_LITE,
    ),
    (
        "unimplemented",
        "lite subscription to an unknown topic",
        NO_LITE,
    ),
    (
        "unimplemented",
        "lite subscription of an unknown group",
        NO_LITE,
    ),
];

/// Puts the dev broker's answers, where they may differ, in place of the recorded ones. A
/// difference that is gone is none to allow.
pub(crate) fn accept(recorded: &mut Recording, answered: &Recording) {
    for (part, step, why) in ALLOWED {
        let ours = answered.answer(part, step);
        let ours = ours.unwrap_or_else(|| panic!("no step {part}: {step}"));
        assert!(
            recorded.answer(part, step) != Some(ours),
            "{part}: {step}: the real server answers the same: no longer {why:?}"
        );
        recorded.replace(part, step, ours.clone());
    }
}
