//! What became of every message.

mod report;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    time::Duration,
};

use sqlx::{Row, SqlitePool};
use tokio::time::{Instant, sleep};

use super::{
    Fault, SETTLED_WITHIN,
    fleet::{Fleet, Kind, Stop},
    journal::Notes,
    storm::{self, Blow, Harm, Storm},
};

/// For how long a connection may be dead before it is noticed, and its leases have lapsed.
const FROZEN_FOR_MS: u64 = 60_000;
/// How long a producer waits for an answer before it sends again.
const REQUEST_TIMEOUT_MS: u64 = 3_000;
/// Longest time in which nothing is handled though something waits, with no harm near: a lease and
/// the broker's revival.
const STALL_MAX_MS: u64 = 30_000;
/// The App's deadline and the second that it may take to end.
const STOP_BY: Duration = Duration::from_secs(26);
/// The effect of a blow on the pace: a lease, the broker's revival, a process's start.
const AFTERMATH_MS: u64 = 25_000;

/// One time that a handler was through with a message.
struct Handled {
    at: u64,
    seq: i64,
    message_id: String,
    process: String,
}

/// Why a message was handled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// Its producer was not sure and sent it again: two messages.
    SentTwice,
    Killed,
    Frozen,
    BrokerRestarted,
    /// Its order is kept: it was done behind one that was handed back at a stop.
    StoppedInOrder,
    /// The stop could not be finished, and said so.
    StopNotClean,
    Unexplained,
}

/// The judgement.
pub(super) struct Verdict {
    tried: usize,
    confirmed: usize,
    unsure: usize,
    refused: usize,
    lost: Vec<String>,
    /// Said not to be stored, and handled all the same.
    lied: Vec<String>,
    settled_after: Duration,
    twice: BTreeMap<Cause, usize>,
    unexplained: Vec<String>,
    groups: usize,
    out_of_order: Vec<String>,
    blows: BTreeMap<Harm, usize>,
    stall: (u64, Vec<Harm>),
    stall_in_peace: u64,
    stops: Vec<Stop>,
    /// Stops that failed with nothing near that could have made them.
    unclean: Vec<String>,
    dead: Vec<String>,
}

/// Ends the producers, waits until all is handled, ends the consumers, and compares.
pub(super) async fn reach(mut fleet: Fleet, storm: Storm, folder: &Path) -> Result<Verdict, Fault> {
    let dead = fleet.dead()?;
    fleet.end(Kind::Producer).await?;
    let mut stops = fleet.stops().await?;
    let notes = Notes::read(folder)?;
    let pool = storm::database(folder)?;
    let start = Instant::now();
    while start.elapsed() < SETTLED_WITHIN {
        let done = ids(&pool).await?;
        if notes.confirmed.keys().all(|id| done.contains(id)) {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let settled_after = start.elapsed();
    fleet.end(Kind::Consumer).await?;
    stops.extend(fleet.stops().await?);
    let handled = handled(&pool).await?;
    Ok(Verdict::new(
        &notes,
        &handled,
        &storm.blows,
        stops,
        dead,
        settled_after,
    ))
}

async fn ids(pool: &SqlitePool) -> Result<HashSet<String>, Fault> {
    let rows = sqlx::query("SELECT DISTINCT id FROM handled")
        .fetch_all(pool)
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// By message, in the order of their commits.
async fn handled(pool: &SqlitePool) -> Result<BTreeMap<String, Vec<Handled>>, Fault> {
    let rows = sqlx::query("SELECT at, id, seq, message_id, process FROM handled ORDER BY rowid");
    let mut all: BTreeMap<String, Vec<Handled>> = BTreeMap::new();
    for row in rows.fetch_all(pool).await? {
        all.entry(row.get("id")).or_default().push(Handled {
            at: u64::try_from(row.get::<i64, _>("at"))?,
            seq: row.get("seq"),
            message_id: row.get("message_id"),
            process: row.get("process"),
        });
    }
    Ok(all)
}

// === impl Verdict ===

impl Verdict {
    fn new(
        notes: &Notes,
        handled: &BTreeMap<String, Vec<Handled>>,
        blows: &[Blow],
        stops: Vec<Stop>,
        dead: Vec<String>,
        settled_after: Duration,
    ) -> Self {
        let mut lost: Vec<_> = notes.confirmed.keys().cloned().collect();
        lost.retain(|id| !handled.contains_key(id));
        let confirmed = |id: &String| notes.confirmed.contains_key(id) || notes.unsure.contains(id);
        let mut lied: Vec<_> = notes.refused.iter().cloned().collect();
        lied.retain(|id| handled.contains_key(id) && !confirmed(id));

        let mut twice = BTreeMap::new();
        let mut unexplained = Vec::new();
        for (id, times) in handled {
            for pair in times.windows(2) {
                let cause = cause(id, pair, notes, blows, &stops);
                *twice.entry(cause).or_default() += 1;
                if cause == Cause::Unexplained {
                    let (a, b) = (&pair[0], &pair[1]);
                    unexplained.push(format!(
                        "{id} ({}) by {} at {} and by {} at {}",
                        a.message_id, a.process, a.at, b.process, b.at
                    ));
                }
            }
        }
        let (groups, out_of_order) = order(handled);
        let (stall, stall_in_peace) = stalls(notes, handled, blows);
        let unclean = stops.iter().filter(|stop| !stop.is_clean());
        let unclean = unclean.filter(|stop| !excused(stop, blows));
        let unclean = unclean.map(|stop| stop.process.clone()).collect();
        let mut counts = BTreeMap::new();
        for blow in blows {
            *counts.entry(blow.harm).or_default() += 1;
        }
        Self {
            tried: notes.tried.len(),
            confirmed: notes.confirmed.len(),
            unsure: notes.unsure.len(),
            refused: notes.refused.len(),
            lost,
            lied,
            settled_after,
            twice,
            unexplained,
            groups,
            out_of_order,
            blows: counts,
            stall,
            stall_in_peace,
            stops,
            unclean,
            dead,
        }
    }

    /// Nothing was lost, nothing stood still, nothing is unexplained, every process ended by its
    /// deadline and well, and something was tried at all.
    pub(super) fn is_good(&self) -> bool {
        self.confirmed > 0
            && self.lost.is_empty()
            && self.lied.is_empty()
            && self.unexplained.is_empty()
            && self.out_of_order.is_empty()
            && self.dead.is_empty()
            && self.unclean.is_empty()
            && self.stops.iter().all(|stop| stop.took <= STOP_BY)
            && self.stall_in_peace <= STALL_MAX_MS
    }
}

/// Whether a process could not settle what it held: its connection was dead, or the broker away.
fn excused(stop: &Stop, blows: &[Blow]) -> bool {
    let end = stop.at + u64::try_from(stop.took.as_millis()).unwrap_or(u64::MAX);
    blows.iter().any(|blow| {
        let before = match blow.harm {
            Harm::Frozen if blow.process == stop.process => FROZEN_FOR_MS,
            Harm::BrokerRestarted | Harm::DatabaseLocked => AFTERMATH_MS,
            Harm::Frozen | Harm::Stopped | Harm::Killed => return false,
        };
        blow.until + before >= stop.at && blow.from <= end
    })
}

fn cause(id: &str, pair: &[Handled], notes: &Notes, blows: &[Blow], stops: &[Stop]) -> Cause {
    let [first, again] = pair else {
        return Cause::Unexplained;
    };
    let between = |harm: Harm, process: &str, from: u64, until: u64| {
        blows.iter().any(|blow| {
            blow.harm == harm
                && (blow.process.is_empty() || blow.process == process)
                && blow.until >= from
                && blow.from <= until
        })
    };
    // One `publish` sends again when no answer came, under the same id.
    let producer = id.split([':', '/']).next().unwrap_or_default();
    let tried = notes.tried.get(id).copied().unwrap_or_default();
    let confirmed = notes.confirmed.get(id).copied().unwrap_or(u64::MAX);
    let sent_again = || {
        let unanswered = tried.saturating_sub(FROZEN_FOR_MS);
        between(Harm::BrokerRestarted, producer, tried, confirmed)
            || (confirmed - tried > REQUEST_TIMEOUT_MS
                && between(Harm::Frozen, producer, unanswered, confirmed))
    };
    let struck = |harm: Harm, since: u64| between(harm, &first.process, since, again.at);
    let not_clean = |stop: &Stop| stop.process == first.process && !stop.is_clean();
    if first.message_id != again.message_id {
        match notes.unsure.contains(id) || sent_again() {
            true => Cause::SentTwice,
            false => Cause::Unexplained,
        }
    } else if struck(Harm::Killed, first.at) {
        Cause::Killed
    } else if struck(Harm::Frozen, first.at.saturating_sub(FROZEN_FOR_MS)) {
        Cause::Frozen
    } else if struck(
        Harm::BrokerRestarted,
        // One that was killed has forgotten what it gave out: a message that it gives again at
        // another attempt, from its retry topic, comes from its own place too.
        first.at.saturating_sub(AFTERMATH_MS),
    ) {
        Cause::BrokerRestarted
    } else if sent_again() {
        Cause::SentTwice
    } else if struck(Harm::Stopped, first.at) && stops.iter().any(not_clean) {
        Cause::StopNotClean
    } else if struck(Harm::Stopped, first.at) && id.contains("/g") {
        Cause::StoppedInOrder
    } else {
        Cause::Unexplained
    }
}

/// The message groups, and where one was first handled before its predecessor was.
fn order(handled: &BTreeMap<String, Vec<Handled>>) -> (usize, Vec<String>) {
    let mut groups: HashMap<&str, Vec<(&Handled, &str)>> = HashMap::new();
    for (id, times) in handled {
        if let (Some((group, _)), Some(first)) = (id.rsplit_once(':'), times.first())
            && group.contains("/g")
        {
            groups.entry(group).or_default().push((first, id));
        }
    }
    let mut wrong = Vec::new();
    for firsts in groups.values_mut() {
        firsts.sort_by_key(|(first, _)| first.seq);
        for pair in firsts.windows(2) {
            if pair[1].0.at < pair[0].0.at {
                wrong.push(format!("{} before {}", pair[1].1, pair[0].1));
            }
        }
    }
    (groups.len(), wrong)
}

/// The longest time in which nothing was handled though messages were confirmed and waiting: ever,
/// with what happened around it, and while nothing did.
fn stalls(
    notes: &Notes,
    handled: &BTreeMap<String, Vec<Handled>>,
    blows: &[Blow],
) -> ((u64, Vec<Harm>), u64) {
    let firsts = handled
        .iter()
        .filter_map(|(id, times)| Some((id, times.first()?.at)));
    let firsts: HashMap<_, _> = firsts.collect();
    let mut at: Vec<_> = handled
        .values()
        .flatten()
        .map(|handled| handled.at)
        .collect();
    at.sort_unstable();
    let (mut longest, mut in_peace) = ((0, Vec::new()), 0);
    for pair in at.windows(2) {
        let length = pair[1] - pair[0];
        if length <= in_peace {
            continue;
        }
        let waits = |(id, confirmed): (&String, &u64)| {
            *confirmed <= pair[0] && firsts.get(id).is_some_and(|handled| *handled >= pair[1])
        };
        if !notes.confirmed.iter().any(waits) {
            continue;
        }
        let around = blows
            .iter()
            .filter(|blow| blow.until + AFTERMATH_MS >= pair[0] && blow.from <= pair[1]);
        let mut around: Vec<_> = around.map(|blow| blow.harm).collect();
        around.sort_unstable();
        around.dedup();
        if around.is_empty() {
            in_peace = length;
        }
        if length > longest.0 {
            longest = (length, around);
        }
    }
    (longest, in_peace)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;

    /// A run in which a message was tried, confirmed and handled at these times.
    fn judge(handled: &[(&str, u64, &str)], blows: &[Blow]) -> Verdict {
        let mut notes = Notes::default();
        for seq in 0..3 {
            let id = format!("p0-0/g0:{seq}");
            notes.tried.insert(id.clone(), 100);
            notes.confirmed.insert(id, 101);
        }
        let mut all: BTreeMap<String, Vec<Handled>> = BTreeMap::new();
        for (id, at, process) in handled {
            all.entry((*id).to_owned()).or_default().push(Handled {
                at: *at,
                seq: id.rsplit_once(':').unwrap().1.parse().unwrap(),
                message_id: format!("id of {id}"),
                process: (*process).to_owned(),
            });
        }
        Verdict::new(&notes, &all, blows, Vec::new(), Vec::new(), Duration::ZERO)
    }

    const ALL: [(&str, u64, &str); 3] = [
        ("p0-0/g0:0", 110, "c0-0"),
        ("p0-0/g0:1", 120, "c0-0"),
        ("p0-0/g0:2", 130, "c0-0"),
    ];

    #[test]
    fn a_run_without_a_fault_is_good() {
        assert!(judge(&ALL, &[]).is_good());
    }

    #[test]
    fn a_confirmed_message_that_nobody_handled_is_lost() {
        let verdict = judge(&ALL[..2], &[]);
        assert_eq!(verdict.lost, ["p0-0/g0:2"]);
        assert!(!verdict.is_good());
    }

    #[test]
    fn a_second_time_needs_a_cause_in_the_process_of_the_first() {
        let again = [ALL[0], ALL[1], ALL[2], ("p0-0/g0:2", 5_000, "c1-0")];
        let killed = |process: &str| Blow {
            harm: Harm::Killed,
            process: process.to_owned(),
            from: 140,
            until: 141,
        };
        assert_eq!(judge(&again, &[]).unexplained.len(), 1);
        assert!(!judge(&again, &[killed("c1-0")]).is_good());
        assert!(judge(&again, &[killed("c0-0")]).is_good());
    }

    #[test]
    fn a_broker_that_was_killed_gives_a_message_twice_for_a_while() {
        let at = 3 * AFTERMATH_MS;
        let twice = [
            ALL[0],
            ALL[1],
            ("p0-0/g0:2", at, "c0-0"),
            ("p0-0/g0:2", at + 300, "c0-0"),
        ];
        let restarted = |until: u64| Blow {
            harm: Harm::BrokerRestarted,
            process: String::new(),
            from: 140,
            until,
        };
        assert!(judge(&twice, &[restarted(at - 1_000)]).is_good());
        assert!(!judge(&twice, &[restarted(at - AFTERMATH_MS - 1)]).is_good());
    }

    #[test]
    fn one_handled_before_its_predecessor_is_out_of_order() {
        let swapped = [
            ALL[0],
            ("p0-0/g0:2", 120, "c0-0"),
            ("p0-0/g0:1", 130, "c0-0"),
        ];
        assert_eq!(judge(&swapped, &[]).out_of_order.len(), 1);
        assert!(!judge(&swapped, &[]).is_good());
    }

    #[test]
    fn two_messages_of_one_need_a_reason_to_have_been_sent_twice() {
        let judge = |unsure: bool| {
            let mut notes = Notes::default();
            notes.tried.insert("p0-0:1".to_owned(), 100);
            notes.confirmed.insert("p0-0:1".to_owned(), 101);
            if unsure {
                notes.unsure.insert("p0-0:1".to_owned());
            }
            let times = ["one", "other"].map(|message_id| Handled {
                at: 110,
                seq: 0,
                message_id: message_id.to_owned(),
                process: "c0-0".to_owned(),
            });
            let all = BTreeMap::from([("p0-0:1".to_owned(), times.into())]);
            Verdict::new(&notes, &all, &[], Vec::new(), Vec::new(), Duration::ZERO).is_good()
        };
        assert!(judge(true) && !judge(false));
    }

    #[test]
    fn a_stop_that_fails_needs_a_reason() {
        let failed = Stop {
            process: "c0-0".to_owned(),
            at: 1_000,
            took: Duration::from_secs(1),
            status: Some(ExitStatus::from_raw(256)),
        };
        let frozen = |process: &str| Blow {
            harm: Harm::Frozen,
            process: process.to_owned(),
            from: 500,
            until: 500,
        };
        assert!(excused(&failed, &[frozen("c0-0")]));
        assert!(!excused(&failed, &[frozen("c1-0")]) && !excused(&failed, &[]));
    }

    #[test]
    fn a_stall_counts_only_while_something_waits() {
        let late = [ALL[0], ALL[1], ("p0-0/g0:2", 9_000, "c0-0")];
        let verdict = judge(&late, &[]);
        assert_eq!((verdict.stall.0, verdict.stall_in_peace), (8_880, 8_880));
        assert!(verdict.is_good());
        assert!(!judge(&[ALL[0], ALL[1], ("p0-0/g0:2", 99_000, "c0-0")], &[]).is_good());
    }
}
