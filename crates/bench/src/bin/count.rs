//! Instructions and allocations per message, and the gate that keeps them.
//!
//! ```text
//! count                 counts every scenario and compares with the baseline; fails if one costs
//!                       more than 2 % above it
//! count --write         the same, and writes what was counted as the new baseline
//! count run SCENARIO    the rounds of one scenario: what valgrind runs
//! ```
//!
//! Instructions are counted by callgrind, within [`bench::drain`]. What makes them vary: the
//! seeds of hash maps, a little.
#![allow(clippy::print_stdout)]

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use bench::{Engine, ROUND, Scenario};
use serde::{Deserialize, Serialize};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Rounds that are counted, after those that warm up.
const ROUNDS: usize = 20;
const WARM_UP: usize = 3;

/// How much more than the baseline is too much: a part of it.
const TOLERANCE: f64 = 0.02;

/// Allocations that are no message's: vectors of many, and what the exporter's thread makes wait.
const ALLOCATIONS_SLACK: f64 = 0.05;

/// What one message costs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["run", scenario] => run(scenario.parse()?),
        [] => gate(false),
        ["--write"] => gate(true),
        _ => Err("count [--write] | count run SCENARIO".into()),
    }
}

/// Prints the allocations; callgrind around it counts the instructions.
fn run(scenario: Scenario) -> Result<(), AnyError> {
    let engine = Engine::start(scenario)?;
    for _ in 0..WARM_UP {
        engine.warm_up();
    }
    let mut allocations = 0;
    for _ in 0..ROUNDS {
        engine.fill();
        allocations += allocation_counter::measure(|| engine.drain()).count_total;
    }
    println!("{}", allocations as f64 / messages());
    Ok(())
}

fn gate(write: bool) -> Result<(), AnyError> {
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.toml"));
    let mut baseline: BTreeMap<String, Cost> = if write {
        BTreeMap::new()
    } else {
        let told = |error| {
            format!(
                "{}: {error}; `make bench-baseline` writes it",
                file.display()
            )
        };
        toml::from_str(&std::fs::read_to_string(&file).map_err(told)?)?
    };
    let mut worse = Vec::new();
    println!("per message           instructions      baseline    allocations");
    for scenario in Scenario::ALL {
        let now = count(scenario)?;
        let (name, was) = (scenario.name(), baseline.get(scenario.name()).copied());
        let before = was.map_or_else(|| "-".to_owned(), |was| format!("{:.0}", was.instructions));
        println!(
            "{name:20} {:13.0} {before:>13} {:14.3}",
            now.instructions, now.allocations
        );
        if now.instructions < 1.0 {
            return Err(format!("{name}: callgrind has counted nothing").into());
        }
        // What has no baseline is compared with nothing: it must get one.
        if !write && was.is_none_or(|was| now.is_worse_than(was)) {
            worse.push(name);
        }
        baseline.insert(name.to_owned(), now);
    }
    if write {
        std::fs::write(&file, toml::to_string(&baseline)?)?;
    } else if !worse.is_empty() {
        let worse = worse.join(", ");
        return Err(format!(
            "costs more than the baseline, or has none: {worse}; `make bench-baseline` if meant"
        )
        .into());
    }
    Ok(())
}

/// Runs a scenario under callgrind.
fn count(scenario: Scenario) -> Result<Cost, AnyError> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
        ])
        .arg("--toggle-collect=bench::engine::drain*")
        .arg(std::env::current_exe()?)
        .args(["run", scenario.name()])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{scenario}: {told}").into());
    }
    let collected = told
        .lines()
        .find_map(|line| line.split("Collected :").nth(1));
    let instructions: f64 = collected
        .ok_or("callgrind counted nothing")?
        .trim()
        .parse()?;
    Ok(Cost {
        instructions: (instructions / messages()).round(),
        allocations: String::from_utf8(output.stdout)?.trim().parse()?,
    })
}

fn messages() -> f64 {
    (ROUND * ROUNDS) as f64
}

// === impl Cost ===

impl Cost {
    fn is_worse_than(self, before: Self) -> bool {
        self.instructions > before.instructions * (1.0 + TOLERANCE)
            || self.allocations > before.allocations * (1.0 + TOLERANCE) + ALLOCATIONS_SLACK
    }
}
