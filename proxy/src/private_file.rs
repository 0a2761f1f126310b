//! Files that are this process's alone: readable by their owner, replaced whole.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Somebody else could have written or read it.
    #[error("not used: {0}")]
    Exposed(&'static str),
}

/// At most the first `max` bytes. `Ok(None)`: there is none.
pub fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, PrivateFileError> {
    let mut file = match fs::OpenOptions::new().read(true).custom_flags(open_flags()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    check_owner(&file.metadata()?)?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Mode 0600. A crash leaves the old one or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself is durable only with its directory.
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn check_owner(metadata: &fs::Metadata) -> Result<(), PrivateFileError> {
    if !metadata.is_file() {
        return Err(PrivateFileError::Exposed("it is not a regular file"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(PrivateFileError::Exposed("it belongs to another user"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(PrivateFileError::Exposed("others than its owner may read or write it"));
    }
    Ok(())
}

/// `O_NOFOLLOW`: a link could lead to a file that somebody else chose. `O_NONBLOCK`: opening a pipe would wait for its writer.
fn open_flags() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32
}
