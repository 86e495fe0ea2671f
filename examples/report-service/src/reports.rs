//! What a report becomes.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use kratos_broker::Receipt;
use kratos_rocketmq as rocketmq;
use report_proto::{AcceptStatusReportData, PostReportRequest, RealTimeWarehousingData};
use tokio::time::timeout;

/// Events: `RealTimeWarehousingData` as JSON.
pub const TOPIC_EVENT: &str = "logger_report_event";

/// User reports: `AcceptStatusReportData` as JSON.
pub const TOPIC_USER: &str = "logger_report_user";

/// How long a poster waits for the broker's confirmation before it is told to post again.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes reports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reports {
    events: rocketmq::TopicPublisher<RealTimeWarehousingData>,
    users: rocketmq::TopicPublisher<AcceptStatusReportData>,
}

/// Why a report was not taken.
#[derive(Debug)]
pub enum PostError {
    /// The report is wrong; posting it again will not help.
    Invalid(String),
    /// The broker did not confirm the message; it may be stored all the same.
    Unconfirmed(String),
}

// === impl Reports ===

impl Reports {
    /// Reports that go out by this publisher.
    #[must_use]
    pub fn new(publisher: rocketmq::Publisher) -> Self {
        Self {
            events: rocketmq::TopicPublisher::json(publisher.clone(), TOPIC_EVENT).schema(),
            users: rocketmq::TopicPublisher::json(publisher, TOPIC_USER).schema(),
        }
    }

    /// Publishes a report and returns once the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// [`PostError::Invalid`] for an unknown `reportType` or an event without a name,
    /// [`PostError::Unconfirmed`] when the broker refused the message or did not answer in time.
    pub async fn post(&self, report: PostReportRequest) -> Result<(), PostError> {
        match timeout(CONFIRM_TIMEOUT, self.publish(report)).await {
            Ok(published) => published.map(drop),
            Err(_elapsed) => {
                let waited = format!("the broker did not answer within {CONFIRM_TIMEOUT:?}");
                tracing::warn!("report not confirmed: {waited}");
                Err(PostError::Unconfirmed(waited))
            }
        }
    }

    async fn publish(&self, report: PostReportRequest) -> Result<Receipt, PostError> {
        if report.event_name.is_empty() {
            return Err(PostError::Invalid("eventName is missing".to_owned()));
        }
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        match report.report_type.as_str() {
            "event" => {
                let event = RealTimeWarehousingData {
                    event_name: Some(report.event_name),
                    report_data: Some(report.content),
                    create_time: Some(now),
                };
                self.events
                    .publish(&event)
                    .await
                    .map_err(|error| unconfirmed(&error))
            }
            "user" => {
                let user = AcceptStatusReportData {
                    data_name: Some(report.event_name.clone()),
                    report_type: Some(report.report_type),
                    report_data: Some(report.content),
                    part_event: Some(report.event_name),
                    part_date: Some(now),
                    ..AcceptStatusReportData::default()
                };
                self.users
                    .publish(&user)
                    .await
                    .map_err(|error| unconfirmed(&error))
            }
            other => {
                let reason = format!("reportType is {other:?}: it must be \"event\" or \"user\"");
                Err(PostError::Invalid(reason))
            }
        }
    }
}

fn unconfirmed(error: &kratos_broker::Error) -> PostError {
    let chain = kratos::error_chain(error);
    tracing::warn!(error = %chain, "report not confirmed");
    PostError::Unconfirmed(chain.to_string())
}

// === impl PostError ===

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "{reason}"),
            Self::Unconfirmed(reason) => write!(f, "not confirmed by the broker: {reason}"),
        }
    }
}

impl std::error::Error for PostError {}
