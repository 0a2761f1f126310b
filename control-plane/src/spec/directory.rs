//! The files of a directory, and their bytes, within bounds.

use std::{
    collections::HashSet,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Fault, Parsed, parse};

/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Every `*.yaml` and `*.yml` under `dir`, sorted. Links are followed, each folder once; names that begin with a dot are left out
/// (editors' files, and the folders that a mounted ConfigMap keeps its versions in).
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(dir, &mut HashSet::new(), &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(dir: &Path, visited: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !visited.insert(dir.canonicalize()?) {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // A dangling link is a file that cannot be read: told when it is.
        if path.is_dir() {
            collect(&path, visited, found)?;
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            found.push(path);
        }
    }
    Ok(())
}

/// The bytes of a regular file; an error where it is longer than any file of ours has reason to be.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(bytes)
}

/// Reads every file of a directory. An error is one of the directory itself; a file that cannot be read is a fault of that file.
pub fn read_directory(dir: &Path) -> io::Result<Parsed> {
    let mut all = Parsed::default();
    for path in files(dir)? {
        let file: Arc<Path> = path.into();
        match read_bounded(&file) {
            Ok(bytes) => all.extend(parse(&file, &bytes, read_bounded)),
            Err(error) => all.faults.push(Fault::of_file(&file, format!("cannot be read: {error}"))),
        }
    }
    Ok(all)
}
