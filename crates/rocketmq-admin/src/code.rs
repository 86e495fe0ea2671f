//! Codes of the remoting protocol, those that this crate sends and those that it understands.

pub(crate) const CREATE_TOPIC: i32 = 17;
pub(crate) const ALL_TOPICS: i32 = 21;
pub(crate) const BROKER_RUNTIME: i32 = 28;
pub(crate) const ROUTE: i32 = 105;
pub(crate) const CLUSTER: i32 = 106;
pub(crate) const CREATE_GROUP: i32 = 200;
pub(crate) const ALL_GROUPS: i32 = 201;
pub(crate) const TOPIC_STATS: i32 = 202;
pub(crate) const DELETE_GROUP: i32 = 207;
pub(crate) const CONSUME_STATS: i32 = 208;
pub(crate) const DELETE_TOPIC_AT_BROKER: i32 = 215;
pub(crate) const DELETE_TOPIC_AT_NAME_SERVER: i32 = 216;
pub(crate) const RESET_OFFSET: i32 = 222;
pub(crate) const TOPICS_OF_GROUP: i32 = 343;

pub(crate) const SUCCESS: i32 = 0;
pub(crate) const SYSTEM_ERROR: i32 = 1;
pub(crate) const BUSY: i32 = 2;
pub(crate) const NOT_SUPPORTED: i32 = 3;
pub(crate) const ILLEGAL: i32 = 13;
pub(crate) const NOT_AVAILABLE: i32 = 14;
pub(crate) const NO_PERMISSION: i32 = 16;
pub(crate) const NO_TOPIC: i32 = 17;
pub(crate) const NO_GROUP: i32 = 26;
pub(crate) const INVALID_PARAMETER: i32 = 29;
pub(crate) const GO_AWAY: i32 = 1500;
