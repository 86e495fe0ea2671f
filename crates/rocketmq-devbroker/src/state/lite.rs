//! Lite topics: they can be sent to. Consuming them is refused, as by the real server whose proxy and
//! broker are one process.

use rocketmq_proto::v2::Code;

use crate::state::{limits::check_lite_name, refusal::Refusal};

/// What a lite consumer gets that says which lite topics it wants.
pub(crate) fn sync_lite(names: &[String]) -> Result<(), Refusal> {
    names.iter().try_for_each(|name| check_lite_name(name))?;
    let message = "lite subscriptions are not supported by this broker";
    Err(Refusal::new(Code::InternalServerError, message))
}
