//! Generated types of `proto/report/v1/report.proto`, the contract between the example services.
//!
//! The JSON of a type accepts camelCase and snake_case names; what is written follows the
//! `json_name` of the field.

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    include!("generated/report.v1.rs");
}

pub use generated::*;

/// What reflection tells of the services and messages: an encoded `FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/report.v1.bin");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_takes_both_spellings() {
        let camel: PostReportRequest = serde_json::from_str(r#"{"reportType":"event"}"#).unwrap();
        let snake: PostReportRequest = serde_json::from_str(r#"{"report_type":"event"}"#).unwrap();
        assert_eq!(camel, snake);
        assert_eq!(camel.report_type, "event");
    }

    #[test]
    fn json_of_an_event_has_the_names_of_the_contract() {
        let event = RealTimeWarehousingData {
            event_name: Some("login".into()),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"event_name":"login"}"#
        );
        let camel: RealTimeWarehousingData =
            serde_json::from_str(r#"{"eventName":"login"}"#).unwrap();
        assert_eq!(camel, event);
    }
}
