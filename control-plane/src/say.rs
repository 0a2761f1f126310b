//! Lines for the operator on stdout.
//!
//! A thread of their own writes them: a terminal that stands still, or a pipe that nobody reads, must hold up nothing else.

use std::{
    fmt::Display,
    io::{self, Write},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

/// Bytes that may wait to be written; lines beyond are dropped, and counted.
const MAX_WAITING: usize = 64 * 1024 * 1024;
/// How long `flush` waits for a reader.
const FLUSH: Duration = Duration::from_secs(1);

enum Message {
    Line(String),
    Flush(Sender<()>),
}

static WRITER: LazyLock<Option<Sender<Message>>> = LazyLock::new(|| {
    let (sender, messages) = mpsc::channel();
    thread::Builder::new().name("stdout".into()).spawn(move || messages.into_iter().for_each(write)).ok().map(|_| sender)
});
static WAITING: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Writes one line. That nobody reads it any more (`println!` would panic) is no reason to stop serving.
pub(crate) fn say(line: impl Display) {
    let line = format!("{line}\n");
    let Some(writer) = &*WRITER else { return print(&line) };
    if WAITING.fetch_add(line.len(), Ordering::Relaxed) > MAX_WAITING {
        WAITING.fetch_sub(line.len(), Ordering::Relaxed);
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    // The thread ends with the process.
    let _ = writer.send(Message::Line(line));
}

/// Returns when everything was written, or nobody reads it. Before the process ends.
pub(crate) fn flush() {
    let (done, written) = mpsc::channel();
    if WRITER.as_ref().is_some_and(|writer| writer.send(Message::Flush(done)).is_ok()) {
        let _ = written.recv_timeout(FLUSH);
    }
}

fn write(message: Message) {
    match message {
        Message::Line(line) => {
            WAITING.fetch_sub(line.len(), Ordering::Relaxed);
            match DROPPED.swap(0, Ordering::Relaxed) {
                0 => {}
                dropped => print(&format!("ringfence: {dropped} lines were dropped while nobody read\n")),
            }
            print(&line);
        }
        Message::Flush(done) => drop(done.send(())),
    }
}

fn print(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
