//! Who a client says it is: its id and the headers of every request.

use std::{
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;

use crate::{Error, backoff::random_u64, credentials::Signer, hex};

/// Language that the server knows; it refuses names that are not on its list.
const LANGUAGE: HeaderValue = HeaderValue::from_static("RUST");
const PROTOCOL: HeaderValue = HeaderValue::from_static("v2");
/// The server compares this with "5.0.3" to choose between old and new status codes.
pub(crate) const VERSION: &str = "5.2.2";

const DATE_TIME: HeaderName = HeaderName::from_static("x-mq-date-time");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-mq-request-id");

/// Of one producer or consumer: the server keeps settings and leases by client id, so two of them
/// must never share one.
#[derive(Debug)]
pub(crate) struct Identity {
    client_id: String,
    headers: HeaderMap,
    /// `None`: requests go unsigned.
    signer: Option<Arc<Signer>>,
    date: Mutex<Date>,
    request_prefix: u64,
    requests: AtomicU64,
}

/// The text changes once a second, the headers are made for each request.
#[derive(Debug)]
struct Date {
    second: u64,
    text: HeaderValue,
}

impl Identity {
    pub(crate) fn new(
        name: &str,
        namespace: &str,
        signer: Option<Arc<Signer>>,
    ) -> Result<Self, Error> {
        static INSTANCES: AtomicU32 = AtomicU32::new(0);
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let client_id = format!(
            "{name}@{}@{instance}@{}",
            process::id(),
            base36(random_u64() >> 16)
        );

        let value = |what: &str, text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Error::config(format!("{what} {text:?} has characters beyond ASCII")))
        };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert("x-mq-language", LANGUAGE);
        headers.insert("x-mq-protocol", PROTOCOL);
        headers.insert("x-mq-client-version", HeaderValue::from_static(VERSION));
        headers.insert("x-mq-client-id", value("client name", &client_id)?);
        headers.insert("x-mq-namespace", value("namespace", namespace)?);
        let date = Mutex::new(Date {
            second: 0,
            text: HeaderValue::from_static(""),
        });
        let request_prefix = random_u64();
        Ok(Self {
            client_id,
            headers,
            signer,
            date,
            request_prefix,
            requests: AtomicU64::new(0),
        })
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Who signs the requests, if they are signed.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        self.signer.as_deref()
    }

    /// Unique in this process and, by its random half, elsewhere.
    pub(crate) fn next_request_id(&self) -> RequestId {
        RequestId(
            self.request_prefix,
            self.requests.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// The headers of one request.
    pub(crate) fn metadata(&self, id: RequestId) -> MetadataMap {
        let mut headers = self.headers.clone();
        let date = self.date(SystemTime::now());
        if let Some(signer) = &self.signer {
            signer.sign(&date, &mut headers);
        }
        headers.insert(DATE_TIME, date);
        if let Ok(mut id) = HeaderValue::try_from(id.text()) {
            // No other request has it: it would push what all have out of HTTP/2's header table.
            id.set_sensitive(true);
            headers.insert(REQUEST_ID, id);
        }
        MetadataMap::from_headers(headers)
    }

    fn date(&self, now: SystemTime) -> HeaderValue {
        let second = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs();
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if date.second != second
            && let Ok(text) = HeaderValue::try_from(date_time(second))
        {
            *date = Date { second, text };
        }
        date.text.clone()
    }
}

/// Written like a UUID.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId(u64, u64);

impl RequestId {
    fn text(self) -> String {
        let (a, b) = (self.0, self.1);
        let parts = [(a >> 32, 8), (a >> 16, 4), (a, 4), (b >> 48, 4), (b, 12)];
        let mut text = String::with_capacity(36);
        for (number, digits) in parts {
            if !text.is_empty() {
                text.push('-');
            }
            hex::push(&mut text, number, digits, false);
        }
        text
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

/// `yyyyMMdd'T'HHmmss'Z'` in UTC, from seconds since 1970.
fn date_time(second: u64) -> String {
    let (days, rest) = (second / 86_400, second % 86_400);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    // Years from March on, so that the leap day is the last of its year.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or(0);
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_utc_and_know_leap_years() {
        let cases = [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_735_689_600, "20250101T000000Z"),
            (4_107_542_400, "21000301T000000Z"),
        ];
        for (second, text) in cases {
            assert_eq!(date_time(second), text);
        }
    }

    #[test]
    fn every_request_carries_the_headers_of_the_protocol() {
        let identity = Identity::new("test", "ns", None).unwrap();
        let metadata = identity.metadata(identity.next_request_id());
        let get = |name: &str| metadata.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(get("x-mq-language"), "RUST");
        assert_eq!(get("x-mq-protocol"), "v2");
        assert_eq!(get("x-mq-namespace"), "ns");
        assert_eq!(get("x-mq-client-id"), identity.client_id());
        assert_eq!(get("x-mq-date-time").len(), "20250101T000000Z".len());
        assert_eq!(get("x-mq-request-id").len(), 36);
        let next = identity.metadata(identity.next_request_id());
        assert_ne!(
            next.get("x-mq-request-id").unwrap(),
            get("x-mq-request-id").as_str()
        );
    }

    #[test]
    fn two_identities_differ_and_odd_names_are_refused() {
        let (a, b) = (
            Identity::new("x", "", None).unwrap(),
            Identity::new("x", "", None).unwrap(),
        );
        assert_ne!(a.client_id(), b.client_id());
        assert!(
            Identity::new("x\n", "", None).is_err() && Identity::new("x", "\u{1}", None).is_err()
        );
    }
}
