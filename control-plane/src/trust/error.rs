//! Why nobody is vouched for.

use std::path::PathBuf;

use ringfence_xds::{decode::Fault, policy::TrustDomain};

use super::{AuthorityError, RotationError, StateError, TokenError};

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error("the state is of trust domain {0}: give --trust-domain {0}")]
    OtherDomain(TrustDomain),
    #[error("the authorities of the state are the operator's own: give --ca-cert, --ca-key and --ca-roots")]
    NotGiven,
    #[error("the certificate authority's certificate, key and roots do not go together: {0}")]
    NotVouchedFor(rustls::Error),
    #[error("there is no authority that certifies")]
    NoIssuer,
    #[error(
        "{sidecars} connected {} a certificate of the old authority: it is withdrawn by itself when the last has expired, or now with --force",
        if *sidecars == 1 { "sidecar has" } else { "sidecars have" }
    )]
    StillShown { sidecars: usize },
    #[error(
        "the sidecars of other replicas are not known here: the old authority is withdrawn by itself when the last of its certificates has \
         expired, or now with --force"
    )]
    OthersUnknown,
    #[error("the authorities are signed elsewhere: ringfence sign --authorities")]
    Elsewhere,
    #[error("{}: {}", path.display(), faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Authorities { path: PathBuf, faults: Vec<Fault> },
    #[error("the signed set does not say whom sidecars are to believe: ringfence sign --authorities")]
    NoAuthorities,
    #[error("replicas that start with one state do not come to an end with each other")]
    Restless,
    #[error("there is no Workload named {0:?}")]
    NoWorkload(String),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}
