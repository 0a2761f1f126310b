//! The proof that this sidecar is who it says, for an issuer that does not know it yet. A token is shown to the issuer and to nobody else:
//! no message, no `Debug`; our copy is wiped after use (those in the buffers of the connection are not ours to wipe).

use std::{
    fmt, fs,
    io::{self, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use ringfence_xds::generated::resource::issue_request;
use tokio::{sync::oneshot, time::timeout};
use zeroize::Zeroizing;

use crate::{
    bootstrap::{JoinToken, ProofSource},
    private_file::{self, PrivateFileError},
    telemetry::notice,
};

/// Of a service account's, a JWT of some claims, with room.
const MAX_BYTES: usize = 16 * 1024;
/// Whoever writes the token to standard input has it at hand.
const STDIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProofError {
    #[error("standard input, for the join token: {0}")]
    Stdin(TokenError),
    #[error("standard input, for the join token: it has not ended after {} s", STDIN_TIMEOUT.as_secs())]
    StdinOpen,
    #[error("the join token of standard input is used up: start this sidecar with a new one, of `ringfence join`")]
    Spent,
    #[error("{}: {error}", path.display())]
    Token { path: PathBuf, error: TokenError },
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: PrivateFileError },
    #[error("{}: there is no join token: it is used up, or not there yet; write a new one of `ringfence join` there", path.display())]
    NoFile { path: PathBuf },
}

/// Why something is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("must hold a token, and is empty")]
    Empty,
    #[error("must hold a token of at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("must hold a token: printable ASCII without spaces, on one line")]
    NotText,
}

pub(super) struct Token(Zeroizing<String>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[derive(Debug)]
pub(super) enum Proof {
    Stdin(Stdin),
    JoinTokenFile(PathBuf),
    ServiceAccountToken(PathBuf),
}

#[derive(Debug)]
pub(super) enum Stdin {
    Reading(oneshot::Receiver<Result<Token, TokenError>>),
    Read(Token),
    Spent,
}

impl Proof {
    /// Begins to read standard input, where the token comes that way.
    pub(super) fn of(source: &ProofSource) -> Self {
        match source {
            ProofSource::JoinToken(JoinToken::Stdin) => Self::Stdin(Stdin::Reading(read_apart(unbuffered_stdin))),
            ProofSource::JoinToken(JoinToken::File(path)) => Self::JoinTokenFile(path.clone()),
            ProofSource::ServiceAccountToken { file } => Self::ServiceAccountToken(file.clone()),
        }
    }

    #[cfg(test)]
    pub(super) fn stdin_of(file: fs::File) -> Self {
        Self::Stdin(Stdin::Reading(read_apart(|| Ok(file))))
    }

    pub(super) async fn shown(&mut self) -> Result<issue_request::Proof, ProofError> {
        match self {
            Self::Stdin(stdin) => Ok(issue_request::Proof::JoinToken(stdin.token().await?.0.to_string())),
            Self::JoinTokenFile(path) => {
                let file = |error| ProofError::File { path: path.clone(), error };
                let bytes = private_file::read(path, MAX_BYTES as u64 + 1).map_err(file)?;
                let bytes = Zeroizing::new(bytes.ok_or_else(|| ProofError::NoFile { path: path.clone() })?);
                let token = read(&**bytes).map_err(|error| ProofError::Token { path: path.clone(), error })?;
                Ok(issue_request::Proof::JoinToken(token.0.to_string()))
            }
            Self::ServiceAccountToken(path) => service_account_token(path),
        }
    }

    /// What goes with the SVID itself: with a service account's token it is told that the pod is still there, so that an SVID that was
    /// stolen without it, or outlived its pod, is renewed for nobody. Of a join token there is none: it is good once.
    pub(super) fn beside_svid(&self) -> Result<Option<issue_request::Proof>, ProofError> {
        match self {
            Self::ServiceAccountToken(path) => service_account_token(path).map(Some),
            Self::Stdin(_) | Self::JoinTokenFile(_) => Ok(None),
        }
    }

    /// An SVID was issued on it.
    pub(super) fn accepted(&mut self) {
        match self {
            Self::Stdin(stdin) => *stdin = Stdin::Spent,
            Self::JoinTokenFile(path) => remove(path),
            Self::ServiceAccountToken(_) => {}
        }
    }

    /// The issuer does not take it. A file may be replaced with a better one.
    pub(super) fn refused(&mut self) {
        if let Self::Stdin(stdin) = self {
            *stdin = Stdin::Spent;
        }
    }
}

impl Stdin {
    async fn token(&mut self) -> Result<&Token, ProofError> {
        if let Self::Reading(reading) = self {
            let read = timeout(STDIN_TIMEOUT, reading).await.map_err(|_| ProofError::StdinOpen)?;
            // Only one of the two can be had: the reader ends by sending.
            let read = read.unwrap_or_else(|_| Err(TokenError::Io(io::ErrorKind::BrokenPipe.into())));
            *self = Self::Spent;
            *self = Self::Read(read.map_err(ProofError::Stdin)?);
        }
        match self {
            Self::Read(token) => Ok(token),
            Self::Reading(_) | Self::Spent => Err(ProofError::Spent),
        }
    }
}

/// Kubernetes puts another in its place through symbolic links.
fn service_account_token(path: &Path) -> Result<issue_request::Proof, ProofError> {
    let token = fs::File::open(path).map_err(TokenError::Io).and_then(read);
    let token = token.map_err(|error| ProofError::Token { path: path.into(), error })?;
    Ok(issue_request::Proof::ServiceAccountToken(token.0.to_string()))
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            notice(format_args!("identity: {}: the used join token cannot be removed: {error}", path.display()));
        }
        _ => {}
    }
}

/// On a thread of its own: whoever holds the other end may never close it, and nothing waits for the thread.
fn read_apart<R: Read>(open: impl FnOnce() -> io::Result<R> + Send + 'static) -> oneshot::Receiver<Result<Token, TokenError>> {
    let (sender, receiver) = oneshot::channel();
    // Where no thread can be had, the sender is dropped, which tells.
    let _ = thread::Builder::new().name("join-token".into()).spawn(move || {
        let _ = sender.send(open().map_err(TokenError::Io).and_then(read));
    });
    receiver
}

/// The standard library's reads ahead into a buffer that nobody wipes.
fn unbuffered_stdin() -> io::Result<fs::File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// To the end, which must come within bounds. One line end may follow the token.
fn read(mut from: impl Read) -> Result<Token, TokenError> {
    // Its whole size from the start: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    Read::by_ref(&mut from).take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(TokenError::TooLong);
    }
    let token = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let token = token.strip_suffix(b"\r").unwrap_or(token);
    match std::str::from_utf8(token) {
        Ok("") => Err(TokenError::Empty),
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Token(Zeroizing::new(text.into()))),
        _ => Err(TokenError::NotText),
    }
}

#[cfg(test)]
mod tests;
