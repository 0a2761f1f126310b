//! The files of a directory, and their bytes, within bounds.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Disk, Fault, Parsed, parse};

/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What there is under a directory.
#[derive(Debug, Default)]
pub struct Scan {
    /// Every `*.yaml` and `*.yml` by path, and where it really lies; `None` for a link, which may lead anywhere.
    pub files: BTreeMap<PathBuf, Option<PathBuf>>,
    /// Folders that cannot be read.
    pub unreadable: Vec<(PathBuf, io::Error)>,
}

/// What a scan comes by, before it looks further.
#[derive(Clone, Copy, Debug)]
pub enum Met<'a> {
    /// By its real path.
    Folder(&'a Path),
    Link(&'a Path),
}

/// Looks through `dir`. Links are followed, each folder once; names that begin with a dot are left out (editors' files, our own state, and
/// the folders that a mounted ConfigMap keeps its versions in). An error is one of `dir` itself.
pub fn scan(dir: &Path, mut met: impl FnMut(Met<'_>)) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut visited = HashSet::new();
    look(dir, &mut met, &mut visited, &mut scan)?;
    Ok(scan)
}

fn look(dir: &Path, met: &mut impl FnMut(Met<'_>), visited: &mut HashSet<PathBuf>, scan: &mut Scan) -> io::Result<()> {
    let real = dir.canonicalize()?;
    if !visited.insert(real.clone()) {
        return Ok(());
    }
    met(Met::Folder(&real));
    let mut names = fs::read_dir(&real)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()?;
    // Which of two ways to one folder is taken must not depend on chance.
    names.sort();
    for name in names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b".")) {
        let (path, real) = (dir.join(name), real.join(name));
        let is_link = fs::symlink_metadata(&real).is_ok_and(|metadata| metadata.is_symlink());
        if is_link {
            met(Met::Link(&real));
        }
        // A dangling link is a file that cannot be read: told when it is.
        if real.is_dir() {
            match look(&path, met, visited, scan) {
                // Removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => scan.unreadable.push((path, error)),
                Ok(()) => {}
            }
        } else if is_object_file(&path) {
            scan.files.insert(path, (!is_link).then_some(real));
        }
    }
    Ok(())
}

/// Whether a file of this name holds objects.
pub fn is_object_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// The bytes of a regular file; an error where it is longer than any file of ours has reason to be.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, MAX_FILE_BYTES)
}

pub(crate) fn read_at_most(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {} MiB", longest >> 20)));
    }
    Ok(bytes)
}

/// Reads every file of a directory. An error is one of the directory itself; a file that cannot be read is a fault of that file.
pub fn read_directory(dir: &Path) -> io::Result<Parsed> {
    read_with(dir, Disk::default())
}

/// The same with what a control plane that served the directory keeps in `state_dir`.
pub fn read_directory_as_served(dir: &Path, state_dir: &Path) -> io::Result<Parsed> {
    read_with(dir, Disk { state_dir: Some(state_dir) })
}

fn read_with(dir: &Path, others: Disk<'_>) -> io::Result<Parsed> {
    let scan = scan(dir, |_| ())?;
    let mut all = Parsed { faults: scan.faults().collect(), ..Parsed::default() };
    for path in scan.files.into_keys() {
        let file: Arc<Path> = path.into();
        match read_bounded(&file) {
            Ok(bytes) => all.extend(parse(&file, &bytes, others)),
            Err(error) => all.faults.push(unreadable(&file, &error)),
        }
    }
    Ok(all)
}

/// The fault of a file or folder as a whole.
pub(crate) fn unreadable(path: &Arc<Path>, error: &io::Error) -> Fault {
    Fault::of_file(path, format!("cannot be read: {error}"))
}

impl Scan {
    pub(crate) fn faults(&self) -> impl Iterator<Item = Fault> {
        self.unreadable.iter().map(|(path, error)| unreadable(&path.as_path().into(), error))
    }
}
