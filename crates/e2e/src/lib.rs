//! Runs the example services as processes against a real Apache RocketMQ: see `tests/it`.
//! `make e2e` starts the server and calls them.
