//! The program's command line, by the binary itself.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn quickstart(folder: &Path, args: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .args(args)
        .current_dir(folder)
        .env_remove("KRATOS_ROCKETMQ__ENDPOINTS")
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    (output, out)
}

#[test]
fn documents_and_descriptions_need_no_broker_and_touch_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (output, described) = quickstart(folder.path(), &["describe"]);
    assert!(output.status.success());
    for line in [
        "  route POST /agent/v1/report\n",
        "  route GET /saver/v1/reports\n",
        "  service report.v1.ReportService\n",
        "  subscription logger_report_event in group logger-saver, filter *\n",
        "resource store\n",
        "document asyncapi\n",
    ] {
        assert!(described.contains(line), "{described}");
    }
    let (output, asyncapi) = quickstart(folder.path(), &["asyncapi"]);
    assert!(output.status.success());
    let asyncapi: Value = serde_json::from_str(&asyncapi).unwrap();
    let operations = asyncapi["operations"].as_object().unwrap();
    let names: Vec<_> = operations.keys().collect();
    let expected = [
        "receive_logger_report_event_logger-saver",
        "receive_logger_report_user_logger-saver",
        "send_logger_report_event",
        "send_logger_report_user",
    ];
    assert_eq!(names, expected);
    let event = &asyncapi["components"]["schemas"]["RealTimeWarehousingData"]["properties"];
    assert!(event["event_name"].is_object(), "{event}");

    let (output, openapi) = quickstart(folder.path(), &["openapi"]);
    assert!(output.status.success());
    let openapi: Value = serde_json::from_str(&openapi).unwrap();
    assert_eq!(openapi["openapi"], "3.1.0");
    assert!(openapi["paths"]["/agent/v1/report"]["post"].is_object());
    assert!(openapi["paths"]["/saver/v1/reports"]["get"].is_object());
    let list = &openapi["components"]["schemas"]["Report"]["properties"];
    assert!(list["messageId"].is_object(), "{list}");
    assert_eq!(
        folder.path().read_dir().unwrap().count(),
        0,
        "no file was made"
    );
}

#[test]
fn check_ends_with_a_failure_when_something_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (output, out) = quickstart(folder.path(), &["check"]);
    assert!(output.status.success(), "{out}");
    assert!(!out.contains("WRONG"), "{out}");

    std::fs::write(
        folder.path().join("saver.sqlite"),
        "this is no database at all",
    )
    .unwrap();
    let (output, out) = quickstart(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(
        out.contains("to do: set store.path to a SQLite database"),
        "{out}"
    );

    std::fs::write(
        folder.path().join("bad.toml"),
        "[rocketmq]\nendpoint = \"x\"",
    )
    .unwrap();
    let (output, out) = quickstart(folder.path(), &["check", "--config", "bad.toml"]);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("rocketmq.endpoint"), "{out}");
}

#[test]
fn a_wrong_command_line_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (output, _) = quickstart(folder.path(), &["chekc"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("chekc") && told.contains("--help"), "{told}");
    let (output, help) = quickstart(folder.path(), &["dead-letters", "replay", "--help"]);
    assert!(output.status.success());
    assert!(
        help.contains("--to") && help.contains("--per-second"),
        "{help}"
    );
}
