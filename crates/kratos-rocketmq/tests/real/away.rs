//! The laws of a broker that goes away. The server is shared: it is the way to it that is cut.

use kratos_broker::testing::{block_on, load, shutdown};

use crate::{Real, relay::Way};

#[test]
fn s6_a_dead_broker_does_not_hold_the_stop_when_it_refuses() {
    block_on(async {
        let harness = Real::behind_a_relay(Way::Refused).await;
        shutdown::s6_a_dead_broker_does_not_hold_the_stop(&harness).await;
    });
}

#[test]
fn s6_a_dead_broker_does_not_hold_the_stop_when_it_is_silent() {
    block_on(async {
        let harness = Real::behind_a_relay(Way::Silent).await;
        shutdown::s6_a_dead_broker_does_not_hold_the_stop(&harness).await;
    });
}

#[test]
fn d15_a_broker_that_comes_back_has_lost_nothing_that_was_confirmed() {
    block_on(async {
        let harness = Real::behind_a_relay(Way::Refused).await;
        load::d15_a_broker_that_restarts_loses_nothing_that_was_confirmed(&harness).await;
    });
}
