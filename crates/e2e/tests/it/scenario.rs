//! Signals in the middle of 5,000 reports.

use std::{collections::HashSet, sync::atomic::Ordering::Relaxed, time::Duration};

use tempfile::TempDir;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    poster::{Poster, Run},
    rows::Rows,
    service::{Service, free_port},
};

const REPORTS: u64 = 5_000;

/// Slow enough that the signals come in the middle.
const PER_SECOND: u64 = 500;

/// The lease of a message that a dead saver held, and what the server may add.
const LEASE: Duration = Duration::from_secs(30);
const BACK_WITHIN: Duration = Duration::from_secs(40);

/// The scenarios share topics and group.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

struct Site {
    run: Run,
    folder: TempDir,
    http: u16,
    grpc: u16,
}

impl Site {
    fn new() -> Self {
        Self {
            run: Run::new(),
            folder: tempfile::tempdir().unwrap(),
            http: free_port(),
            grpc: free_port(),
        }
    }

    async fn report_service(&self, name: &str) -> Service {
        let env = [
            ("KRATOS_HTTP__ADDR", format!("127.0.0.1:{}", self.http)),
            ("KRATOS_GRPC__ADDR", format!("127.0.0.1:{}", self.grpc)),
        ];
        Service::start("report-service", name, self.grpc, self.folder.path(), &env).await
    }

    async fn saver(&self, name: &str) -> Service {
        let http = free_port();
        let env = [
            ("KRATOS_HTTP__ADDR", format!("127.0.0.1:{http}")),
            (
                "KRATOS_STORE__PATH",
                self.folder.path().join("rows.sqlite").display().to_string(),
            ),
        ];
        Service::start("saver-service", name, http, self.folder.path(), &env).await
    }

    fn rows(&self) -> Rows {
        Rows::open(&self.folder.path().join("rows.sqlite"), self.run)
    }
}

async fn assert_every_report_is_stored_once(run: Run, rows: &Rows) {
    let stored = rows.all().await;
    let wanted: HashSet<_> = (0..REPORTS).map(|n| run.expected(n)).collect();
    let missing: Vec<_> = wanted.difference(&stored).take(5).collect();
    let strange: Vec<_> = stored.difference(&wanted).take(5).collect();
    assert!(
        missing.is_empty() && strange.is_empty(),
        "missing {missing:?}, strange {strange:?}"
    );
    assert_eq!(rows.count().await, i64::try_from(REPORTS).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_to_every_service_loses_nothing() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let site = Site::new();
    let reports = site.report_service("report-1").await;
    let saver = site.saver("saver-1").await;
    let rows = site.rows();
    let mut poster = Poster::start(site.run, site.http, site.grpc, REPORTS, PER_SECOND);

    poster.reaches(REPORTS / 4).await;
    let saver_1 = saver.stop().await;
    let saver = site.saver("saver-2").await;
    poster.reaches(REPORTS / 2).await;
    let report_1 = reports.stop().await;
    let reports = site.report_service("report-2").await;
    poster.reaches(REPORTS * 3 / 4).await;
    let saver_2 = saver.stop().await;
    let saver = site.saver("saver-3").await;
    let tally = poster.finish().await;

    let waited = rows
        .wait_for(i64::try_from(REPORTS).unwrap(), BACK_WITHIN)
        .await;
    assert_every_report_is_stored_once(site.run, &rows).await;
    let saver_3 = saver.stop().await;
    let report_2 = reports.stop().await;
    let (duplicates, of) = rows.duplicates().await;
    println!(
        "SIGTERM: {} confirmed, {REPORTS} rows {waited:.1?} after the last post; \
         {duplicates} duplicate deliveries of {of} messages absorbed; repeated: {} refused, {} not \
         confirmed; stops: saver {saver_1:.2?} {saver_2:.2?} under load, {saver_3:.2?} idle, \
         report service {report_1:.2?} under load, {report_2:.2?} idle",
        tally.confirmed.load(Relaxed),
        tally.refused.load(Relaxed),
        tally.unavailable.load(Relaxed),
    );
    assert_eq!(tally.confirmed.load(Relaxed), REPORTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_to_the_saver_loses_nothing() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let site = Site::new();
    let reports = site.report_service("report-1").await;
    let saver = site.saver("saver-1").await;
    let rows = site.rows();
    let mut poster = Poster::start(site.run, site.http, site.grpc, REPORTS, PER_SECOND);

    poster.reaches(REPORTS / 2).await;
    saver.kill().await;
    let killed = Instant::now();
    let saver = site.saver("saver-2").await;
    let tally = poster.finish().await;

    rows.wait_for(i64::try_from(REPORTS).unwrap(), BACK_WITHIN)
        .await;
    let back = killed.elapsed();
    assert_every_report_is_stored_once(site.run, &rows).await;
    saver.stop().await;
    reports.stop().await;
    let (duplicates, of) = rows.duplicates().await;
    println!(
        "SIGKILL: {} confirmed, {REPORTS} rows; the last held message back {back:.1?} after the \
         kill (lease {LEASE:?}); {duplicates} duplicate deliveries of {of} messages absorbed",
        tally.confirmed.load(Relaxed),
    );
    assert!(
        back < LEASE + Duration::from_secs(10),
        "held messages came back after {back:?}"
    );
}
