//! The chart `ringfence`, as it comes out of `helm template`.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use crate::kubernetes::User;

/// Where it is installed.
pub const NAMESPACE: &str = "ringfence-system";

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ringfence")
}

/// Of kinds that the API server knows by itself or by the chart's own definitions. `more`: further arguments of helm.
#[track_caller]
pub fn template<A: AsRef<OsStr>>(user: &User, more: &[A]) -> String {
    let chart = folder();
    let own = ["template", "ringfence", "--include-crds", "--namespace", NAMESPACE, "--kube-version", "1.34.0"].map(OsStr::new);
    let arguments = own.into_iter().chain([chart.as_os_str()]).chain(more.iter().map(AsRef::as_ref));
    let output = user.helm(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all = String::from_utf8(output.stdout).unwrap();
    let foreign = ["apiVersion: monitoring.coreos.com/", "apiVersion: policies.kyverno.io/"];
    let known = all.split("\n---\n").filter(|object| !foreign.iter().any(|group| object.contains(group)));
    known.collect::<Vec<_>>().join("\n---\n")
}
