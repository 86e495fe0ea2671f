//! `check`: what a start needs, asked one by one.

use std::{io::Write, process::ExitCode, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::unwritten;
use crate::{AppDescription, Check, Error, Finding, Result, error_chain};

/// How long one question may take; all are asked at once.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

struct Row {
    of: String,
    what: String,
    answer: Result<String, Finding>,
}

pub(super) async fn run(described: &AppDescription, out: &mut impl Write) -> Result<ExitCode> {
    let mut rows = vec![Row {
        of: described.info.name().to_owned(),
        what: "configuration".to_owned(),
        answer: Ok("read".to_owned()),
    }];
    let parts = described.resources.iter().chain(&described.servers);
    let asked = parts.flat_map(|(of, part)| part.checks().iter().map(|check| ask(of, check)));
    rows.extend(join_all(asked).await);
    print(&rows, out)
}

/// The App could not even be built.
pub(super) fn broken(error: &Error, out: &mut impl Write) -> Result<ExitCode> {
    let remedy = "mend the configuration";
    let row = Row {
        of: "service".to_owned(),
        what: "configuration".to_owned(),
        answer: Err(Finding::new(error_chain(error).to_string(), remedy)),
    };
    print(&[row], out)
}

async fn ask(of: &str, check: &Check) -> Row {
    let answer = timeout(CHECK_TIMEOUT, check.ask()).await;
    let late = |_elapsed| {
        Err(Finding::new(
            format!("no answer within {} s", CHECK_TIMEOUT.as_secs()),
            "see whether it is there, and reachable from here",
        ))
    };
    Row {
        of: of.to_owned(),
        what: check.name().to_owned(),
        answer: answer.unwrap_or_else(late),
    }
}

fn print(rows: &[Row], out: &mut impl Write) -> Result<ExitCode> {
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max();
    let (of, what) = (
        width(|row| &row.of).unwrap_or_default(),
        width(|row| &row.what).unwrap_or_default(),
    );
    let mut text = String::new();
    let mut wrong = 0;
    for row in rows {
        let (sign, detail) = match &row.answer {
            Ok(detail) => ("ok", detail.as_str()),
            Err(finding) => ("WRONG", finding.wrong.as_str()),
        };
        let line = format!("{sign:5}  {:of$}  {:what$}  {detail}", row.of, row.what);
        text.push_str(line.trim_end());
        text.push('\n');
        if let Err(finding) = &row.answer {
            wrong += 1;
            text.push_str(&format!("       to do: {}\n", finding.remedy));
        }
    }
    out.write_all(text.as_bytes()).map_err(unwritten)?;
    Ok(match wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
