//! A process under test: its output line by line, its end.

use std::{
    fs::Permissions,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{eventually, procfs, wait::DEADLINE};

/// How long a process gets to end by itself when its test is over.
const POLITE: Duration = Duration::from_secs(2);

/// Ended, with whatever it started, when it is dropped. Signals go to process ids alone.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Output>,
    /// What a process that is killed leaves among temporary files goes with this.
    _temporary: Option<TempDir>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    /// Pipes that may bring more.
    open: usize,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        // Whoever else it becomes may write there too.
        let temporary = tempfile::Builder::new().permissions(Permissions::from_mode(0o1777)).tempdir().expect("a temporary directory");
        command.env("TMPDIR", temporary.path());
        Self::spawn(command.stdin(Stdio::null()), Some(temporary))
    }

    /// One that clears away after itself when its standard input ends, which is with this process.
    pub fn start_fed(command: &mut Command) -> Self {
        Self::spawn(command.stdin(Stdio::piped()), None)
    }

    fn spawn(command: &mut Command, temporary: Option<TempDir>) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let output = Arc::new(Output::default());
        output.read(child.stdout.take().expect("piped"));
        output.read(child.stderr.take().expect("piped"));
        Self { child, output, _temporary: temporary }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output and standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lines.lock().unwrap().lines.clone()
    }

    /// The first line so far or to come that fits.
    #[track_caller]
    pub fn line(&mut self, fits: impl Fn(&str) -> bool) -> String {
        self.line_after(0, fits)
    }

    /// The same among the lines that follow the first `skip`.
    #[track_caller]
    pub fn line_after(&mut self, skip: usize, fits: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + DEADLINE;
        let mut output = self.output.lines.lock().unwrap();
        loop {
            if let Some(line) = output.lines.iter().skip(skip).find(|line| fits(line)) {
                return line.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && output.open > 0, "no such line; there are:\n{}", output.lines.join("\n"));
            output = self.output.more.wait_timeout(output, left).unwrap().0;
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a child has a pid");
        // Ended already, if this fails.
        let _ = kill_process(pid, signal);
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().expect("a child can be waited for"))
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, and how it ended.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        let children = procfs::children(self.pid());
        if thread::panicking() {
            eprintln!("output of process {}:\n{}", self.pid(), self.lines().join("\n"));
        } else {
            // Politely first: `up` ends its sidecars and clears its sockets away.
            self.signal(Signal::TERM);
            let until = Instant::now() + POLITE;
            while self.is_running() && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill();
        for child in children.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

impl Output {
    fn read(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        self.lines.lock().unwrap().open += 1;
        let output = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                output.lines.lock().unwrap().lines.push(line);
                output.more.notify_all();
            }
            output.lines.lock().unwrap().open -= 1;
            output.more.notify_all();
        });
    }
}
