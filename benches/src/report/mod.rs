//! The figures: one value a round, told as their median with the lowest and the highest.

mod plot;

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
    goals: Vec<Goal>,
    /// What was not measured, and why.
    left_out: Vec<String>,
}

#[derive(Serialize)]
struct Machine {
    processor: Option<String>,
    cores: usize,
    kernel: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Table {
    title: String,
    columns: Vec<&'static str>,
    /// Which of the columns are drawn.
    drawn: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    /// A value a round, for each column.
    cells: Vec<Vec<f64>>,
}

/// What is aimed at.
#[derive(Serialize)]
struct Goal {
    what: String,
    /// A value a round.
    values: Vec<f64>,
    at_most: f64,
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
        Self { date, revision: revision(), machine, plan, tables: Vec::new(), goals: Vec::new(), left_out: Vec::new() }
    }

    pub(crate) fn table(&mut self, title: &str, columns: &[&'static str]) -> &mut Table {
        self.push(Table::new(title, columns));
        let last = self.tables.len() - 1;
        &mut self.tables[last]
    }

    pub(crate) fn push(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// `values`: one a round; none where a program of the comparison was left out, and then the goal is too.
    pub(crate) fn goal(&mut self, what: &str, at_most: f64, values: Vec<f64>) {
        if !values.is_empty() {
            self.goals.push(Goal { what: what.into(), values, at_most });
        }
    }

    pub(crate) fn leave_out(&mut self, what: String) {
        // Several parts may miss the same program.
        if !self.left_out.contains(&what) {
            self.left_out.push(what);
        }
    }

    /// Writes it beside what was built, as JSON and as a drawing.
    pub(crate) fn store(&self) -> Result<PathBuf, Error> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        let dir = target.join("bench");
        fs::create_dir_all(&dir).map_err(Error::io(dir.display().to_string()))?;
        write(&dir.join("latest.json"), &serde_json::to_vec_pretty(self)?)?;
        write(&dir.join("latest.svg"), plot::draw(&self.tables).as_bytes())?;
        Ok(dir)
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
    pub(crate) fn new(title: &str, columns: &[&'static str]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), drawn: Vec::new(), rows: Vec::new() }
    }

    /// As a bar for each row.
    pub(crate) fn drawn(mut self, columns: &[&'static str]) -> Self {
        self.drawn = columns.to_vec();
        self
    }

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

impl Table {
    /// A column of one row over that of another, round by round; nothing where one of them is not there. A latency that is lost in the
    /// noise, below that of the origin alone, says nothing: its round is left out.
    pub(crate) fn ratio(&self, of: &str, to: &str, column: &str) -> Vec<f64> {
        let pairs = self.values(of, column).iter().zip(self.values(to, column));
        pairs.filter(|(of, to)| **of > 0.0 && **to > 0.0).map(|(of, to)| of / to).collect()
    }

    pub(crate) fn values(&self, row: &str, column: &str) -> &[f64] {
        let row = self.rows.iter().find(|found| found.name == row);
        let column = self.columns.iter().position(|found| *found == column);
        row.zip(column).map_or(&[], |(row, column)| &row.cells[column])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernel } = &self.machine;
        let [processor, kernel, revision] = [processor, kernel, &self.revision].map(|told| told.as_deref().unwrap_or("unknown"));
        writeln!(f, "{}, {revision}; {cores} cores, {processor}, Linux {kernel}; {} rounds", self.date, self.plan.rounds)?;
        self.tables.iter().try_for_each(|table| table.fmt(f))?;
        if !self.goals.is_empty() {
            writeln!(f, "\nGoals\n\n| | at most | measured | |\n|---|---:|---:|---|")?;
        }
        for Goal { what, values, at_most } in &self.goals {
            let met = if median(values).is_some_and(|median| median <= *at_most) { "met" } else { "missed" };
            writeln!(f, "| {what} | {at_most} | {} | {met} |", cell(values))?;
        }
        self.left_out.iter().try_for_each(|what| writeln!(f, "\nLeft out: {what}"))
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
    let [low, high] = [f64::min, f64::max].map(|pick| values.iter().copied().reduce(pick));
    match (median(values), low, high) {
        (Some(only), ..) if values.len() == 1 => number(only),
        (Some(median), Some(low), Some(high)) => format!("{} ({}-{})", number(median), number(low), number(high)),
        _ => String::new(),
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
