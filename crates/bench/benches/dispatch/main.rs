//! Time per message in process: every scenario and a peer, each in a process of its own, in turn.
//!
//! `cargo bench -p bench --bench dispatch`; the median of the turns is the figure.
#![allow(clippy::print_stdout, missing_docs)]

mod peer;

use std::process::Command;

use bench::{Engine, ROUND, Scenario};
use tokio::time::{Duration, Instant};

use self::peer::Peer;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Turns of every scenario.
const TURNS: usize = 5;

/// Rounds of one turn: those that warm up, and those that count.
const WARM_UP: usize = 100;
const ROUNDS: usize = 500;

fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    match args.first() {
        Some(name) => println!("{:.1}", turn(name)?),
        None => compare()?,
    }
    Ok(())
}

/// Every subject in turn, and the table.
fn compare() -> Result<(), AnyError> {
    let ours = Scenario::ALL.iter().map(|scenario| scenario.name());
    let names: Vec<&str> = ours.chain(Peer::NAMES).collect();
    let mut figures = vec![Vec::new(); names.len()];
    for _ in 0..TURNS {
        for (name, figures) in names.iter().zip(&mut figures) {
            let output = Command::new(std::env::current_exe()?).arg(name).output()?;
            let text = String::from_utf8(output.stdout)?;
            figures.push(
                text.trim()
                    .parse::<f64>()
                    .map_err(|_| format!("{name}: {}", String::from_utf8_lossy(&output.stderr)))?,
            );
        }
    }
    println!("ns per message, median of {TURNS} turns (least, most)");
    for (name, figures) in names.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        let (least, most) = (figures[0], figures[TURNS - 1]);
        println!(
            "{name:24} {:7.1}  ({least:.1}, {most:.1})",
            figures[TURNS / 2]
        );
    }
    Ok(())
}

/// The median round of one subject, in nanoseconds per message.
fn turn(name: &str) -> Result<f64, AnyError> {
    if let Some(peer) = Peer::named(name)? {
        return median(|| peer.fill_and_drain());
    }
    let engine = Engine::start(name.parse::<Scenario>()?)?;
    median(|| {
        engine.fill();
        let start = Instant::now();
        engine.drain();
        Ok(start.elapsed())
    })
}

fn median(mut round: impl FnMut() -> Result<Duration, AnyError>) -> Result<f64, AnyError> {
    let mut took = Vec::with_capacity(WARM_UP + ROUNDS);
    for _ in 0..WARM_UP + ROUNDS {
        took.push(round()?);
    }
    let counted = &mut took[WARM_UP..];
    counted.sort_unstable();
    Ok(counted[ROUNDS / 2].as_nanos() as f64 / ROUND as f64)
}
