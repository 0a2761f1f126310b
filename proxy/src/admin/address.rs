//! Where the admin endpoint listens: a Unix socket of the sidecar's user, or loopback.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// `unix:/absolute/path` or `127.0.0.1:15000`. Anything but loopback cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub(super) Place);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminAddressError {
    #[error("the admin address must be unix:/absolute/path or a loopback address with a port such as 127.0.0.1:15000, is {0:?}")]
    Syntax(String),
    #[error("the admin address {0} is not loopback: whoever reaches it reads what is in force; use unix:/absolute/path or 127.0.0.1:{port}", port = .0.port())]
    NotLoopback(SocketAddr),
}

impl FromStr for AdminAddress {
    type Err = AdminAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:")
            && path.starts_with('/')
        {
            return Ok(Self(Place::Unix(path.into())));
        }
        let address: SocketAddr = text.parse().map_err(|_| AdminAddressError::Syntax(text.into()))?;
        if address.ip().to_canonical().is_loopback() { Ok(Self(Place::Tcp(address))) } else { Err(AdminAddressError::NotLoopback(address)) }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("the admin address {address} cannot be listened on: {source}")]
pub struct AdminBindError {
    address: AdminAddress,
    source: io::Error,
}

/// A bound socket, not yet served. A Unix socket's file is removed with it.
#[derive(Debug)]
pub struct AdminListener(pub(super) Bound);

#[derive(Debug)]
pub(super) enum Bound {
    Unix(UnixListener, Arc<SocketFile>),
    Tcp(TcpListener),
}

/// The file of a Unix socket, removed by the process whose it is.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    is_ours: AtomicBool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if *self.is_ours.get_mut() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The same socket for another process.
#[derive(Debug)]
pub struct AdminSocket {
    socket: OwnedFd,
    file: Option<Arc<SocketFile>>,
}

impl AdminSocket {
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Whether this process is the one that serves there, and removes the socket's file at its end.
    pub fn belongs_to_us(&self, is_ours: bool) {
        if let Some(file) = &self.file {
            file.is_ours.store(is_ours, Ordering::Relaxed);
        }
    }
}

impl AdminListener {
    pub fn bind(address: &AdminAddress) -> Result<Self, AdminBindError> {
        let bound = match &address.0 {
            Place::Unix(path) => bind_unix(path),
            Place::Tcp(address) => bind_tcp(*address),
        };
        bound.map(Self).map_err(|source| AdminBindError { address: address.clone(), source })
    }

    /// On the socket of another process, which serves there until this one does: its file is not ours yet.
    pub fn inherit(address: &AdminAddress, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(match &address.0 {
            Place::Unix(path) => Bound::Unix(socket.into(), SocketFile { path: path.clone(), is_ours: AtomicBool::new(false) }.into()),
            Place::Tcp(_) => Bound::Tcp(socket.into()),
        }))
    }

    pub fn socket(&self) -> io::Result<AdminSocket> {
        Ok(match &self.0 {
            Bound::Unix(listener, file) => AdminSocket { socket: listener.try_clone()?.into(), file: Some(file.clone()) },
            Bound::Tcp(listener) => AdminSocket { socket: listener.try_clone()?.into(), file: None },
        })
    }

    /// With the port that was given for port 0; `None` for a Unix socket.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Bound::Unix(..) => None,
            Bound::Tcp(listener) => listener.local_addr().ok(),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Bound::Tcp(listener))
}

/// The socket gets its mode within a folder that nobody else may enter, and then its name: at no time can another user connect. The renaming
/// also takes the place of a socket that a dead process left.
fn bind_unix(path: &Path) -> io::Result<Bound> {
    refuse_to_replace(path)?;
    let folder = path.with_file_name(format!(".admin-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let listener = bind_within(&folder, path);
    let removed = fs::remove_dir_all(&folder);
    let listener = listener?;
    let file = SocketFile { path: path.to_owned(), is_ours: AtomicBool::new(true) };
    removed?;
    Ok(Bound::Unix(listener, file.into()))
}

fn bind_within(folder: &Path, path: &Path) -> io::Result<UnixListener> {
    let unnamed = folder.join("s");
    let listener = UnixListener::bind(&unnamed)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&unnamed, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unnamed, path)?;
    Ok(listener)
}

fn refuse_to_replace(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket has this name"))
        }
        Ok(_) if UnixStream::connect(path).is_ok() => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_unix_sockets_are_addresses() {
        for good in ["127.0.0.1:15000", "127.9.9.9:0", "[::1]:15000", "unix:/run/ringfence/admin.sock", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(good.parse::<AdminAddress>().unwrap().to_string(), good);
        }
        const SYNTAX: &str = "the admin address must be unix:/absolute/path or a loopback address with a port such as 127.0.0.1:15000, is ";
        for bad in ["", "127.0.0.1", "localhost:15000", "unix:", "unix:admin.sock", "/run/admin.sock", "15000", "::1:15000"] {
            assert_eq!(bad.parse::<AdminAddress>().unwrap_err().to_string(), format!("{SYNTAX}{bad:?}"));
        }
        for open in
            ["0.0.0.0:15000", "10.0.0.1:15000", "[::]:15000", "192.168.1.1:15000", "[::ffff:10.0.0.1]:15000", "169.254.169.254:15000"]
        {
            assert_eq!(
                open.parse::<AdminAddress>().unwrap_err().to_string(),
                format!(
                    "the admin address {open} is not loopback: whoever reaches it reads what is in force; \
                     use unix:/absolute/path or 127.0.0.1:15000"
                )
            );
        }
    }

    fn unix(path: &Path) -> AdminAddress {
        AdminAddress(Place::Unix(path.to_owned()))
    }

    #[test]
    fn a_unix_socket_is_its_owners_alone_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = AdminListener::bind(&unix(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        drop(listener);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        let _live = AdminListener::bind(&unix(&path)).unwrap();
        let expected = format!("the admin address unix:{} cannot be listened on: another process listens there", path.display());
        assert_eq!(AdminListener::bind(&unix(&path)).unwrap_err().to_string(), expected);

        let file = folder.path().join("notes");
        fs::write(&file, "kept").unwrap();
        let expected =
            format!("the admin address unix:{} cannot be listened on: something that is no socket has this name", file.display());
        assert_eq!(AdminListener::bind(&unix(&file)).unwrap_err().to_string(), expected);
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn the_file_is_removed_by_the_process_that_serves_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let old = AdminListener::bind(&unix(&path)).unwrap();
        let passed = old.socket().unwrap();
        let came_to_nothing = AdminListener::inherit(&unix(&path), passed.try_clone().unwrap()).unwrap();
        drop(came_to_nothing);
        assert!(path.exists());
        let new = AdminListener::inherit(&unix(&path), passed.try_clone().unwrap()).unwrap();
        passed.belongs_to_us(false);
        new.socket().unwrap().belongs_to_us(true);
        drop((old, passed));
        assert!(UnixStream::connect(&path).is_ok());
        drop(new);
        assert!(!path.exists());
    }

    #[test]
    fn a_port_in_use_is_told() {
        let first = AdminListener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.tcp_address().unwrap().to_string();
        let error = AdminListener::bind(&address.parse().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the admin address {address} cannot be listened on: Address already in use")), "{error}");
    }
}
