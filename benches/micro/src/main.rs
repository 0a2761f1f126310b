//! Instructions of every case, counted by callgrind, beside those of the committed baseline: a figure that no other process on the machine
//! can disturb.
//!
//! Each case runs in a process of its own, under callgrind, which counts nothing but what happens inside [`measured`].

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is for whoever reads it")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::Path,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};
use ringfence_micro::{Case, Run, cases};

/// Runs that are counted: what differs from one to the next (a hash's key, a page's place) evens out.
const RUNS: u64 = 32;
/// Runs before that, which fill caches and resolve symbols.
const WARM_UP: usize = 4;
const BASELINE: &str = "benches/micro/instructions.txt";
/// Percent above the baseline at which a case has become worse, and below which the baseline is out of date.
const TOLERANCE: f64 = 5.0;

#[derive(Parser)]
#[command(about = "Counts the instructions of decisions, and compares them with the baseline")]
struct Arguments {
    /// Writes the baseline anew. Say in the commit why it has changed.
    #[arg(long)]
    write: bool,
    /// Cases whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// One case, to be run under callgrind.
    #[command(hide = true)]
    Run { name: String },
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("callgrind did not count {case}:\n{output}")]
    NotCounted { case: &'static str, output: String },
    #[error("{BASELINE}:{line}: must be a count and a case")]
    Baseline { line: usize },
    #[error("there is no case {0}")]
    NoCase(String),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Error::Io { what, error }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        Some(Role::Run { name }) => run(&name).map(|()| true),
        None => compare(&arguments.only, arguments.write),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringfence-micro: {error}");
            ExitCode::from(2)
        }
    }
}

/// Its name is what callgrind looks for.
#[inline(never)]
fn measured(run: &mut Run) {
    for _ in 0..RUNS {
        run();
    }
}

fn run(name: &str) -> Result<(), Error> {
    let case = cases().find(|case| case.name == name).ok_or_else(|| Error::NoCase(name.to_owned()))?;
    let mut run = (case.prepare)();
    (0..WARM_UP).for_each(|_| run());
    measured(&mut run);
    Ok(())
}

/// Whether no case has become worse, or the baseline was written.
fn compare(only: &str, write: bool) -> Result<bool, Error> {
    let baseline = read_baseline()?;
    let mut counted = BTreeMap::new();
    let mut worse = Vec::new();
    println!("{:>12} {:>12} {:>8}  case", "instructions", "baseline", "change");
    for case in cases().filter(|case| case.name.contains(only)) {
        let count = count(case)?;
        let (before, change) = match baseline.get(case.name) {
            Some(&before) => (before.to_string(), 100.0 * (count as f64 / before as f64 - 1.0)),
            None => ("-".to_owned(), f64::INFINITY),
        };
        println!("{count:>12} {before:>12} {change:>+7.1}%  {}", case.name);
        if change > TOLERANCE {
            worse.push(case.name);
        } else if change < -TOLERANCE {
            println!("{:>35}  better: let the baseline say so (--write)", "");
        }
        counted.insert(case.name, count);
    }
    if write {
        let kept = baseline.iter().filter(|(name, _)| cases().any(|case| case.name == *name) && !name.contains(only));
        let all: BTreeMap<&str, u64> = kept.map(|(name, count)| (name.as_str(), *count)).chain(counted).collect();
        write_baseline(&all)?;
        return Ok(true);
    }
    if !worse.is_empty() {
        println!("\nMore than {TOLERANCE} % above the baseline, or not in it: {}", worse.join(", "));
        println!("If that is the price of something: ringfence-micro --write, and a word in the commit.");
    }
    Ok(worse.is_empty())
}

/// Instructions of one run.
fn count(case: &'static Case) -> Result<u64, Error> {
    let program = std::env::current_exe().map_err(Error::io("own path"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=ringfence_micro::measured*", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["run", case.name])
        .output()
        .map_err(Error::io("valgrind"))?;
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    let total = output.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    match total {
        // A case runs a few instructions at least: less means that `measured` was not found.
        Some(total) if total >= RUNS => Ok(total / RUNS),
        _ => Err(Error::NotCounted { case: case.name, output }),
    }
}

fn read_baseline() -> Result<BTreeMap<String, u64>, Error> {
    let text = match fs::read_to_string(BASELINE) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && Path::new("Cargo.toml").exists() => String::new(),
        Err(error) => return Err(Error::io(BASELINE)(error)),
    };
    let line = |(number, line): (usize, &str)| {
        let (count, name) = line.trim().split_once(' ').ok_or(Error::Baseline { line: number + 1 })?;
        Ok((name.to_owned(), count.parse().map_err(|_| Error::Baseline { line: number + 1 })?))
    };
    text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')).map(line).collect()
}

fn write_baseline(counted: &BTreeMap<&str, u64>) -> Result<(), Error> {
    let mut text =
        String::from("# Instructions of one run of each case (callgrind, profile `counted`). Written by ringfence-micro --write.\n");
    for (name, count) in counted {
        let _ = writeln!(text, "{count} {name}");
    }
    fs::write(BASELINE, text).map_err(Error::io(BASELINE))
}
