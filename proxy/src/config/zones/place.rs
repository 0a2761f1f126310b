//! Where compiled zones are kept: by content, in files that are written once.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ringfence_xds::zone::Digest;
use tempfile::NamedTempFile;

use super::mapping::map;

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Files that have their digests for names.
    Dir(PathBuf),
    /// Files without a name, gone with the process.
    Nameless,
}

impl Place {
    /// Makes the directory (0700) if it is missing.
    pub(super) fn new(state_dir: Option<&Path>) -> io::Result<Self> {
        let Some(state_dir) = state_dir else { return Ok(Self::Nameless) };
        let dir = state_dir.join("zones");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self::Dir(dir))
    }

    /// An empty file that only its owner may open.
    pub(super) fn create(&self) -> io::Result<Unfinished> {
        Ok(match self {
            Self::Dir(dir) => Unfinished::Named(NamedTempFile::new_in(dir)?),
            Self::Nameless => Unfinished::Nameless(tempfile::tempfile()?),
        })
    }

    /// Maps what `create` made and is now whole. It has its name, durably, when this returns.
    pub(super) fn finish(&self, digest: &Digest, file: Unfinished) -> io::Result<Bytes> {
        match (self, file) {
            (Self::Dir(dir), Unfinished::Named(file)) => {
                file.as_file().set_permissions(fs::Permissions::from_mode(0o400))?;
                file.as_file().sync_all()?;
                let file = file.persist(dir.join(digest.to_string()))?;
                fs::File::open(dir)?.sync_all()?;
                map(&file)
            }
            (_, file) => map(file.as_file()),
        }
    }

    /// Maps a file of an earlier run.
    pub(super) fn open(&self, digest: &Digest) -> io::Result<Bytes> {
        let path = self.path(digest).ok_or(ErrorKind::NotFound)?;
        // A link could lead to a file that somebody else may write to; opening a pipe would wait for its writer.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
        let metadata = file.metadata()?;
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.permissions().mode() & 0o377 == 0;
        if !metadata.is_file() || !is_ours {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "others may write to it, or it is no file of ours"));
        }
        map(&file)
    }

    /// Gives up a file; whoever has it mapped keeps it.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        self.path(digest).map_or(Ok(()), |path| remove(&path))
    }

    /// Removes everything but the zones that `is_kept`, unfinished ones too.
    pub(super) fn sweep(&self, is_kept: impl Fn(&Digest) -> bool) -> io::Result<()> {
        let Self::Dir(dir) = self else { return Ok(()) };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let digest = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if !digest.is_some_and(|digest| is_kept(&digest)) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        match self {
            Self::Dir(dir) => Some(dir.join(digest.to_string())),
            Self::Nameless => None,
        }
    }
}

/// A file that is being written, gone when it is dropped.
#[derive(Debug)]
pub(super) enum Unfinished {
    Named(NamedTempFile),
    Nameless(fs::File),
}

impl Unfinished {
    pub(super) fn as_file(&self) -> &fs::File {
        match self {
            Self::Named(file) => file.as_file(),
            Self::Nameless(file) => file,
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
