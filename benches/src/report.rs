//! The figures: one value a round, told as their median with the lowest and the highest.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use serde::Serialize;

use crate::{Error, scenarios::Plan};

#[derive(Serialize)]
pub(crate) struct Report {
    date: String,
    revision: Option<String>,
    machine: Machine,
    plan: Plan,
    tables: Vec<Table>,
}

#[derive(Serialize)]
struct Machine {
    processor: Option<String>,
    cores: usize,
    kernel: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Table {
    title: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
pub(crate) struct Row {
    name: String,
    /// A value a round, for each column.
    cells: Vec<Vec<f64>>,
}

impl Report {
    pub(crate) fn begin(plan: Plan) -> Self {
        let line = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.rsplit(": ").next().unwrap_or(line).to_owned())
        };
        let machine = Machine {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: line("/proc/sys/kernel/osrelease", ""),
        };
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Self { date, revision: revision(), machine, plan, tables: Vec::new() }
    }

    pub(crate) fn table(&mut self, title: &'static str, columns: &[&'static str]) -> &mut Table {
        self.tables.push(Table { title, columns: columns.to_vec(), rows: Vec::new() });
        let last = self.tables.len() - 1;
        &mut self.tables[last]
    }

    /// Writes it as JSON beside what was built.
    pub(crate) fn store(&self) -> Result<PathBuf, Error> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        let dir = target.join("bench");
        fs::create_dir_all(&dir).map_err(Error::io(dir.display().to_string()))?;
        let path = dir.join("latest.json");
        write(&path, &serde_json::to_vec_pretty(self)?)?;
        Ok(path)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::io(path.display().to_string()))
}

fn revision() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Table {
    /// A round's values of one row, in the order of the columns.
    pub(crate) fn add(&mut self, name: &str, values: &[f64]) {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.into(), cells: vec![Vec::new(); self.columns.len()] });
            self.rows.len() - 1
        });
        for (cell, value) in self.rows[at].cells.iter_mut().zip(values) {
            cell.push(*value);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernel } = &self.machine;
        let [processor, kernel, revision] = [processor, kernel, &self.revision].map(|told| told.as_deref().unwrap_or("unknown"));
        writeln!(f, "{}, {revision}; {cores} cores, {processor}, Linux {kernel}; {} rounds", self.date, self.plan.rounds)?;
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    /// Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n\n| | {} |", self.title, self.columns.join(" | "))?;
        writeln!(f, "|---{}|", "|---:".repeat(self.columns.len()))?;
        for row in &self.rows {
            let cells: Vec<_> = row.cells.iter().map(|values| cell(values)).collect();
            writeln!(f, "| {} | {} |", row.name, cells.join(" | "))?;
        }
        Ok(())
    }
}

fn cell(values: &[f64]) -> String {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => String::new(),
        [only] => number(only),
        [low, .., high] => format!("{} ({}-{})", number(values[values.len() / 2]), number(low), number(high)),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
