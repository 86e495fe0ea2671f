//! Commands, for the program of this crate and for a service's own.
//!
//! A service whose `main` is [`kratos::cli::main`] has them by its [`Client`], which is a resource
//! of its App: `saver-service dead-letters list logger-saver`.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use clap::{Args, FromArgMatches, Subcommand};
use kratos_broker::{
    DeadLetterView, Driver, Error, ErrorKind, Replay, ReplayEnded, ReplayReport, Result,
};
use tokio::time::Instant;

use crate::{Client, dead_letters::replay_from};

/// `dead-letters`: what a group has given up.
///
/// ```
/// use clap::Parser;
/// use kratos_rocketmq::cli::DeadLetters;
///
/// #[derive(Parser)]
/// enum Command {
///     /// Dead letters: list, replay.
///     #[command(subcommand)]
///     DeadLetters(DeadLetters),
/// }
///
/// let words = ["app", "dead-letters", "replay", "billing", "--to", "orders", "--key", "order-7"];
/// let Command::DeadLetters(command) = Command::parse_from(words);
/// // command.run(&client, stop, &mut std::io::stdout()).await?;
/// # let _ = command;
/// ```
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLetters {
    /// Shows dead letters, and leaves them where they are.
    List(Which),
    /// Sends dead letters back to the topic that they came from.
    Replay {
        /// Which of them.
        #[command(flatten)]
        which: Which,
        /// Topic that they are sent to. Dead letters of a group (%DLQ%GROUP) do not say where they
        /// came from; others do.
        #[arg(long, value_name = "TOPIC")]
        to: Option<String>,
        /// Letters per second.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        per_second: u32,
    },
}

/// Which dead letters.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Group that has given them up.
    group: String,
    /// Reads them from this topic rather than from %DLQ%GROUP.
    #[arg(long, value_name = "TOPIC")]
    from: Option<String>,
    /// Group that reads them; GROUP-replay, or with --from TOPIC-replay, if it is left out.
    #[arg(long, value_name = "GROUP")]
    reader: Option<String>,
    /// Only those with this key.
    #[arg(long)]
    key: Option<String>,
    /// Only those with this tag.
    #[arg(long)]
    tag: Option<String>,
    /// Only the one of this id.
    #[arg(long)]
    id: Option<String>,
    /// Only those of this type of error; where letters say it (x-dead-letter-error-type).
    #[arg(long)]
    error_type: Option<String>,
    /// Only those published since: a time such as 2026-02-28T12:00:00Z, or how long ago: 90m, 2h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    born_after: Option<SystemTime>,
    /// Only those published before.
    #[arg(long, value_name = "TIME", value_parser = time)]
    born_before: Option<SystemTime>,
    /// Ends after so many.
    #[arg(long, default_value_t = 1_000)]
    at_most: u64,
    /// Ends when nothing has come for so long.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    idle: Duration,
}

/// How long a client may take to say good-bye after a command.
const CLOSE: Duration = Duration::from_secs(3);

/// What a client brings to the command line of its service.
pub(crate) fn command(client: &Client) -> kratos::Command {
    let about = "What groups have given up: list it, send it back";
    let clap = DeadLetters::augment_subcommands(clap::Command::new("dead-letters"));
    // In place of what is said of the type.
    let clap = clap.about(about).long_about(None).subcommand_required(true);
    let client = client.clone();
    kratos::Command::new(clap, move |cx| {
        let client = client.clone();
        async move {
            let command = DeadLetters::from_arg_matches(cx.matches());
            let command = command.map_err(kratos::Error::from_any)?;
            // Whole lines, as they come, from whichever thread.
            let done = command.run(&client, cx.stopped(), &mut io::stdout()).await;
            let closed = kratos::Resource::close(client, Instant::now() + CLOSE).await;
            done.map_err(kratos::Error::from)?;
            closed
        }
    })
}

// === impl DeadLetters ===

impl DeadLetters {
    /// Does it, and tells about it on `out`: a line per letter, and how it ended. The reading group
    /// is made if it can be ([`Client::prepare_replay`]).
    ///
    /// Ends early, and cleanly, when `stop` does: a signal.
    ///
    /// # Errors
    ///
    /// Those of [`Replay::list`] and [`Replay::run`]; nothing could be written.
    pub async fn run(
        self,
        client: &Client,
        stop: impl Future<Output = ()>,
        out: &mut impl Write,
    ) -> Result<()> {
        let (which, to, per_second) = match self {
            Self::List(which) => (which, None, None),
            Self::Replay {
                which,
                to,
                per_second,
            } => (which, to, Some(per_second)),
        };
        let native = which.from.is_none();
        let mut replay = which.replay();
        if let Some(to) = to {
            replay = replay.to(to);
        }
        if let Err(error) = client.prepare_reader(&replay).await {
            return nothing(native, &replay, error, out);
        }
        let mut written = writeln(out, "ID\tBORN\tTAG\tKEYS\tBYTES\tERROR");
        let each = |letter: &DeadLetterView<'_>| {
            if written.is_ok() {
                written = line(out, letter);
            }
        };
        let report = match per_second {
            None => replay.list(client, stop, each).await,
            Some(letters) => {
                let replay = replay.clone().per_second(letters);
                replay.run(&client.publisher(), stop, each).await
            }
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => return nothing(native, &replay, error, out),
        };
        let written = written.and_then(|()| writeln(out, summary(&report, per_second.is_some())));
        written.map_err(unwritten)
    }
}

impl Which {
    fn replay(self) -> Replay {
        let mut replay = replay_from(&self.group, self.from.as_deref());
        if let Some(reader) = self.reader {
            let from = replay.from_topic().clone();
            replay = replay.reading(from, reader);
        }
        replay = replay.at_most(self.at_most).idle(self.idle);
        if let Some(key) = self.key {
            replay = replay.key(key);
        }
        if let Some(tag) = self.tag {
            replay = replay.tag(tag);
        }
        if let Some(id) = self.id {
            replay = replay.id(id);
        }
        if let Some(error_type) = self.error_type {
            replay = replay.error_type(error_type);
        }
        if let Some(at) = self.born_after {
            replay = replay.born_after(at);
        }
        if let Some(at) = self.born_before {
            replay = replay.born_before(at);
        }
        replay
    }
}

/// Says so where no letter can be: RocketMQ makes the topic for a group's first. Else the error is one.
fn nothing(native: bool, replay: &Replay, error: Error, out: &mut impl Write) -> Result<()> {
    if !(native && error.is_unknown_topic()) {
        return Err(error);
    }
    let from = replay.from_topic();
    let said = format!(
        "none: there is no {from}, which is made for the group's first dead letter; a proxy may take \
         half a minute to see a new one"
    );
    writeln(out, said).map_err(unwritten)
}

fn unwritten(error: io::Error) -> Error {
    Error::new(ErrorKind::Other, "cannot write what was done").with_source(error)
}

fn line(out: &mut impl Write, letter: &DeadLetterView<'_>) -> io::Result<()> {
    let born = letter.born().map(humantime::format_rfc3339_seconds);
    let born = born.map(|at| at.to_string()).unwrap_or_default();
    let columns = [
        letter.origin_id().unwrap_or(letter.id()),
        &born,
        letter.tag().unwrap_or_default(),
        &letter.keys().join(" "),
        &letter.body().len().to_string(),
        letter.error_type().unwrap_or_default(),
    ];
    writeln(out, columns.join("\t"))
}

fn summary(report: &ReplayReport, sent: bool) -> String {
    let done = match sent {
        true => format!("{} sent back", report.replayed),
        false => format!("{} found", report.matched),
    };
    let unconfirmed = match report.unconfirmed {
        0 => String::new(),
        count => format!(", {count} of them may be sent once more"),
    };
    let ended = match report.ended {
        ReplayEnded::Exhausted => "all were read",
        ReplayEnded::AtMost => "there may be more: see --at-most",
        ReplayEnded::TooManyUnwanted => "there are more behind too many others",
        ReplayEnded::Stopped => "stopped",
        _ => "ended",
    };
    format!("{done} of {} read{unconfirmed}; {ended}", report.seen)
}

fn writeln(out: &mut impl Write, line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "{line}")
}

fn time(text: &str) -> std::result::Result<SystemTime, String> {
    if let Ok(at) = humantime::parse_rfc3339_weak(text) {
        return Ok(at);
    }
    let ago = humantime::parse_duration(text);
    let at = ago.ok().and_then(|ago| SystemTime::now().checked_sub(ago));
    at.ok_or_else(|| "expected a time such as 2026-02-28T12:00:00Z, or 90m, 2h, 7d".to_owned())
}
