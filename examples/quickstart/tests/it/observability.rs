//! The dashboard and the alert rules ask only for metrics that exist.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

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

/// What services expose, as Prometheus has it.
const METRICS: [&str; 26] = [
    "http_server_request_duration_seconds",
    "kratos_app_phase",
    "kratos_app_uptime_seconds",
    "kratos_message_dead_lettered_total",
    "kratos_message_queue_duration_seconds",
    "kratos_subscription_dead_lettered_total",
    "kratos_subscription_dead_lettering",
    "kratos_subscription_failed_total",
    "kratos_subscription_handed_back_total",
    "kratos_subscription_handled_total",
    "kratos_subscription_in_flight",
    "kratos_subscription_lag",
    "kratos_subscription_lanes",
    "kratos_subscription_leases_extended_total",
    "kratos_subscription_leases_lost_total",
    "kratos_subscription_oldest_age_seconds",
    "kratos_subscription_oldest_held_seconds",
    "kratos_subscription_received_total",
    "kratos_subscription_retried_total",
    "kratos_subscription_state",
    "kratos_subscription_waiting",
    "messaging_client_consumed_messages_total",
    "messaging_client_operation_duration_seconds",
    "messaging_client_sent_messages_total",
    "messaging_process_duration_seconds",
    "rpc_server_call_duration_seconds",
];

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

/// Whether a metric, or the series that a histogram has, exists.
fn exists(name: &str) -> bool {
    let of_histogram = ["_bucket", "_count", "_sum"];
    let whole = of_histogram.iter().find_map(|end| name.strip_suffix(end));
    METRICS.contains(&name) || whole.is_some_and(|name| METRICS.contains(&name))
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

#[test]
fn the_dashboard_asks_only_for_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/service.json")).unwrap();
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    assert!(found.len() > 25, "{} queries", found.len());
    for query in &found {
        for name in metrics(query) {
            assert!(exists(&name), "no metric {name}, in {query}");
        }
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
}

#[test]
fn the_alert_rules_ask_only_for_metrics_that_exist_and_say_what_to_do() {
    let rules = read("prometheus/rules.yaml");
    let found = expressions(&rules);
    let count = |word: &str| {
        rules
            .lines()
            .filter(|line| line.trim_start().starts_with(word))
            .count()
    };
    assert_eq!(found.len(), count("- alert:"));
    assert!(found.len() >= 9);
    for query in &found {
        let names = metrics(query);
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(exists(&name), "no metric {name}, in {query}");
        }
    }
    for word in ["severity", "summary:", "description:"] {
        let with = rules.lines().filter(|line| line.contains(word)).count();
        assert_eq!(with, found.len(), "each says its {word}");
    }
}
