//! The dashboard and the alert rules ask only for metrics that exist.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use hyper::{Request, StatusCode};
use kratos_rocketmq as rocketmq;
use rocketmq_devbroker::DevBroker;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, Quickstart};

/// Words of PromQL that stand where a metric could.
const WORDS: [&str; 19] = [
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "inf",
    "nan",
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "topk",
];

/// Exposed only with the address of the name servers: kratos asserts the name in a test of its own,
/// `metrics_that_wait_for_a_lock_are_given_up_and_everything_else_answers`.
const WITH_NAME_SERVERS: &str = "kratos_subscription_lag";

/// What is exposed last of all that is exposed at all.
const LAST: [&str; 3] = [
    "messaging_process_duration_seconds_count",
    "rpc_server_call_duration_seconds_count",
    "kratos_message_dead_lettered_total",
];

/// The metrics that the program exposes once a report has come through it, a call, and a message
/// that is none of its own.
async fn exposed() -> BTreeSet<String> {
    let broker = DevBroker::builder().listen(([127, 0, 0, 1], 0));
    let broker = broker.start().await.unwrap();
    let endpoints = broker.addr().unwrap().to_string();
    let service = Quickstart::start_with(&[("KRATOS_ROCKETMQ__ENDPOINTS", &endpoints)]).await;
    let report = r#"{"reportType":"event","appId":"a","appKey":"k","eventName":"login","debug":0,"content":"{}"}"#;
    let posted = service.request(Request::post("/agent/v1/report"), report);
    assert_eq!(posted.await.unwrap().0, StatusCode::OK);
    service.call("report.v1.ReportService/PostReport").await;
    let client = rocketmq::Client::new(rocketmq::Config {
        endpoints: Some(endpoints),
        ..Default::default()
    });
    let odd = rocketmq::Message::new("logger_report_event", "no JSON");
    client.unwrap().publisher().publish(odd).await.unwrap();
    let begun = Instant::now();
    loop {
        let text = service.metrics().await;
        if LAST.iter().all(|name| text.contains(name)) {
            let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            let names = types.filter_map(|line| line.split(' ').next());
            return names.map(str::to_owned).collect();
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn read(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/observability");
    fs::read_to_string(folder.join(file)).unwrap()
}

/// The queries of a dashboard, of its panels and of its variables.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    Value::String(text) if name == "definition" => {
                        let inside = text.strip_prefix("label_values(").unwrap();
                        let (query, _label) = inside.rsplit_once(',').unwrap();
                        found.push(query.to_owned());
                    }
                    value => queries(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

/// The expressions of the rules: on the line of `expr`, or indented below it.
fn expressions(rules: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut below = None;
    for line in rules.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(at) = below
            && indent > at
        {
            found.last_mut().unwrap().push_str(line);
            continue;
        }
        below = None;
        if let Some(expression) = line.trim_start().strip_prefix("expr:") {
            let block = expression.trim() == "|";
            below = block.then_some(indent);
            found.push(if block {
                String::new()
            } else {
                expression.to_owned()
            });
        }
    }
    found
}

/// The names of metrics in a query: words that are neither labels, texts, durations, variables,
/// functions, nor words of the language.
fn metrics(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = query;
    // Inside `{..}`, `[..]`, or the labels of `by (..)`.
    let mut labels_follow = false;
    while let Some(first) = rest.chars().next() {
        if let Some(close) = match first {
            '{' => Some('}'),
            '[' => Some(']'),
            '(' if labels_follow => Some(')'),
            _ => None,
        } {
            rest = &rest[past(rest, close)..];
            labels_follow = false;
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            let is_call = rest.trim_start().starts_with('(');
            labels_follow = ["by", "without", "on", "ignoring"].contains(&word);
            if !is_call && !WORDS.contains(&word) {
                found.insert(word.to_owned());
            }
        } else if first.is_ascii_digit() || first == '$' {
            let of_it = |c: char| c.is_ascii_alphanumeric() || "._$".contains(c);
            rest = rest.trim_start_matches(of_it);
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// The byte past the closing sign, texts aside.
fn past(text: &str, close: char) -> usize {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if c == close && !quoted => return at + c.len_utf8(),
            _ => {}
        }
    }
    panic!("no {close} in {text}");
}

/// Each query asks for metrics, or the series that a histogram has, that exist.
fn assert_exist(queries: &[String], exposed: &BTreeSet<String>) {
    let exists = |name: &str| exposed.contains(name) || name == WITH_NAME_SERVERS;
    for query in queries {
        for name in metrics(query) {
            let of_histogram = ["_bucket", "_count", "_sum"];
            let whole = of_histogram.iter().find_map(|end| name.strip_suffix(end));
            let known = exists(&name) || whole.is_some_and(exists);
            assert!(
                known,
                "no metric {name}, in {query}; there are {exposed:#?}"
            );
        }
    }
}

#[test]
fn names_are_found_in_queries() {
    let of = |query: &str| metrics(query).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(of("up"), "up");
    assert_eq!(
        of(
            "histogram_quantile(0.99, sum by (le, job) (rate(a_b:c_bucket{x=~\"}y\"}[$__rate_interval])))"
        ),
        "a_b:c_bucket"
    );
    assert_eq!(
        of("sum(rate(a[5m])) by (b) / on (c) d > 0.1 or vector(0) and e offset 5m"),
        "a d e"
    );
    assert_eq!(of("{__name__=~\"a|b\"}"), "");
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_ask_only_for_metrics_that_exist() {
    let exposed = exposed().await;
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/service.json")).unwrap();
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    assert!(found.len() > 25, "{} queries", found.len());
    assert_exist(&found, &exposed);
    assert_exist(&expressions(&read("prometheus/rules.yaml")), &exposed);
}

#[test]
fn panels_have_ids_of_their_own() {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/service.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
}

#[test]
fn every_alert_asks_something_and_says_what_to_do() {
    let rules = read("prometheus/rules.yaml");
    let found = expressions(&rules);
    let count = |word: &str| {
        let lines = rules.lines().filter(|line| line.contains(word));
        lines.count()
    };
    assert!(found.len() >= 9);
    assert!(found.iter().all(|query| !metrics(query).is_empty()));
    for word in ["- alert:", "severity:", "summary:", "description:"] {
        assert_eq!(count(word), found.len(), "each says its {word}");
    }
}
