#![doc = include_str!("../README.md")]

pub mod v2 {
    //! Messages, enums and the service of package `apache.rocketmq.v2`.
    //!
    //! Bodies are [`bytes::Bytes`](::prost::bytes::Bytes). Enum fields are `i32` on the struct, as
    //! prost makes them: `Code::try_from(status.code)` tells known numbers from unknown ones.
    #![allow(
        clippy::all,
        clippy::needless_pass_by_value,
        clippy::uninlined_format_args,
        clippy::use_self,
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        reason = "generated; `cargo test -p rocketmq-proto` proves it fresh"
    )]

    include!("generated/apache.rocketmq.v2.rs");
}
