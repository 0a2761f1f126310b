//! Where lines go: standard output, or a file that another program may rotate.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use prometheus_client::metrics::counter::Counter;

use crate::telemetry::metrics::Metrics;

/// Standard output without the library's line buffer: a batch is one write.
pub fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// A file, appended to. Made with mode 0600, and made anew when it has been renamed or removed.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode of `file`.
    identity: (u64, u64),
}

impl LogFile {
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let (file, identity) = append_to(&path)?;
        Ok(Self { path, file, identity })
    }
}

fn append_to(path: &Path) -> io::Result<(File, (u64, u64))> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, (metadata.dev(), metadata.ino())))
}

impl Write for LogFile {
    /// One stat(2) before each write, and the writer thread writes some forty times a second at most.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stands = fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        // Where no new file can be made, the old one is better than none.
        if !stands && let Ok((file, identity)) = append_to(&self.path) {
            (self.file, self.identity) = (file, identity);
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes whole lines as far as the sink takes them, and counts the rest.
#[derive(Debug)]
pub(super) struct Output<W> {
    sink: W,
    /// A write failed within a line: the next one begins with a newline, so that it spoils no other.
    torn: bool,
    dropped: Counter,
    errors: Counter,
}

impl<W: Write> Output<W> {
    pub(super) fn new(sink: W, metrics: &Metrics) -> Self {
        Self { sink, torn: false, dropped: metrics.access_log_dropped.clone(), errors: metrics.access_log_write_errors.clone() }
    }

    pub(super) fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut left = lines;
        if self.torn && self.advance(b"\n").is_empty() {
            self.torn = false;
        }
        if !self.torn {
            left = self.advance(lines);
            let written = lines.len() - left.len();
            self.torn = written > 0 && lines[written - 1] != b'\n';
        }
        self.dropped.inc_by(memchr::memchr_iter(b'\n', left).count() as u64);
    }

    /// Writes `bytes` and gives what could not be written.
    fn advance<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => {
                    self.errors.inc();
                    break;
                }
                Ok(written) => bytes = &bytes[written..],
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Takes `room` bytes, then fails.
    struct Full {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_spoils_none() {
        for (room, dropped, expected) in
            [(0, 2, "three\n"), (2, 2, "on\nthree\n"), (4, 1, "one\nthree\n"), (6, 1, "one\ntw\nthree\n"), (8, 0, "one\ntwo\nthree\n")]
        {
            let metrics = Metrics::new();
            let mut output = Output::new(Full { room, taken: Vec::new() }, &metrics);
            output.write(b"one\ntwo\n");
            assert_eq!(metrics.access_log_dropped.get(), dropped, "{room}");
            assert_eq!(metrics.access_log_write_errors.get(), u64::from(room < 8), "{room}");
            output.sink.room = usize::MAX;
            output.write(b"three\n");
            assert_eq!(String::from_utf8_lossy(&output.sink.taken), expected, "{room}");
        }
    }

    #[test]
    fn a_disk_that_stays_full_is_counted_each_time() {
        let metrics = Metrics::new();
        let mut output = Output::new(Full { room: 1, taken: Vec::new() }, &metrics);
        output.write(b"one\n");
        output.write(b"two\nthree\n");
        assert_eq!((metrics.access_log_dropped.get(), metrics.access_log_write_errors.get()), (3, 2));
    }

    #[test]
    fn a_file_is_private_and_follows_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let mut file = LogFile::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        fs::rename(&path, &rotated).unwrap();
        file.write_all(b"two\n").unwrap();
        fs::remove_file(&path).unwrap();
        file.write_all(b"three\n").unwrap();
        drop(file);
        LogFile::open(&path).unwrap().write_all(b"four\n").unwrap();
        assert_eq!(fs::read_to_string(&rotated).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\nfour\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn where_no_new_file_can_be_made_the_old_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, moved) = (folder.path().join("logs"), folder.path().join("moved"));
        fs::create_dir(&inside).unwrap();
        let mut file = LogFile::open(inside.join("access.log")).unwrap();
        fs::rename(&inside, &moved).unwrap();
        file.write_all(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap(), "one\n");
    }
}
