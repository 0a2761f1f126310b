//! Somebody at the API server: a kubeconfig, and the programs that read it.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Place, program};
use crate::tls;

pub struct User {
    pub kubeconfig: PathBuf,
    /// Where his programs run.
    place: Place,
}

impl User {
    pub(super) fn certified(dir: &Path, url: &str, place: &Place, name: &str, group: Option<&str>) -> Self {
        let (certificate, key) = tls::client_pair(name, group);
        let data = |pem: String| BASE64_STANDARD.encode(pem);
        Self::write(dir, url, place, &json!({ "client-certificate-data": data(certificate), "client-key-data": data(key) }))
    }

    pub(super) fn bearing(dir: &Path, url: &str, place: &Place, token: &str) -> Self {
        Self::write(dir, url, place, &json!({ "token": token }))
    }

    /// In a folder of his own, where his programs keep what they remember.
    fn write(dir: &Path, url: &str, place: &Place, user: &Value) -> Self {
        let folder = tempfile::Builder::new().prefix("user-").tempdir_in(dir).unwrap().keep();
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "tests",
                "cluster": { "server": url, "certificate-authority-data": BASE64_STANDARD.encode(tls::authority()) },
            }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": "user" } }],
            "current-context": "tests",
        });
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, config.to_string()).unwrap();
        Self { kubeconfig, place: place.clone() }
    }

    pub fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        self.command("kubectl").args(arguments).output().expect("kubectl runs")
    }

    /// What it prints.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        told(self.kubectl(arguments))
    }

    /// What it says, which must be that it cannot.
    #[track_caller]
    pub fn refused<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let output = self.kubectl(arguments);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// An object, or the list of them.
    #[track_caller]
    pub fn get<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Value {
        let output = self.command("kubectl").args(["get", "-o", "json"]).args(arguments).output().expect("kubectl runs");
        serde_json::from_str(&told(output)).unwrap()
    }

    /// `kubectl` with `manifest`, in YAML or JSON, as its standard input: `feed(["apply", "-f", "-"], …)`.
    pub fn feed<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>, manifest: &str) -> Output {
        let mut command = self.command("kubectl");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut input = child.stdin.take().expect("piped");
        thread::scope(|scope| {
            // It may end without having read all.
            scope.spawn(move || input.write_all(manifest.as_bytes()));
            child.wait_with_output().expect("kubectl ends")
        })
    }

    /// Applied on the server's side, as what these tests do all over again should be.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        told(self.feed(["apply", "--server-side", "-f", "-"], manifest))
    }

    /// An object of a path that no resource's name leads to: a subresource.
    #[track_caller]
    pub fn create_at(&self, path: &str, object: &Value) -> String {
        told(self.feed(["create", "--raw", path, "-f", "-"], &object.to_string()))
    }

    pub fn helm<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        self.command("helm").args(arguments).output().expect("helm runs")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = super::command(&self.place, program(name).unwrap_or_else(|| panic!("no {name}: tests/run makes it")));
        let folder = self.kubeconfig.parent().expect("it lies in a folder");
        // Neither knows anything of whoever runs the tests.
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", folder).stdin(Stdio::null());
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR", "XDG_CACHE_HOME"] {
            command.env(name, folder.join("cache"));
        }
        command
    }
}

#[track_caller]
fn told(output: Output) -> String {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
