//! `ringfence-proxy` started by hand, and what can be seen of any sidecar from outside.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{Serve, Site, binaries::binary, eventually, http, process::Process};

/// One sidecar, with its state and access log in a folder of its own beside the site.
pub struct Sidecar {
    pub process: Process,
    pub admin: Admin,
    pub log: AccessLog,
    pub state: PathBuf,
}

impl Sidecar {
    /// Of `workload`, on its Unix socket, believing the site's own configuration key; ready when this returns.
    #[track_caller]
    pub fn start(site: &Site, serve: &Serve, workload: &str) -> Self {
        Self::start_with(site, serve, workload, &json!({ "configKeys": site.config_keys() }))
    }

    /// With these fields of the bootstrap besides or instead.
    #[track_caller]
    pub fn start_with(site: &Site, serve: &Serve, workload: &str, more: &Value) -> Self {
        let mut fields = json!({ "controlPlane": { "unix": serve.socket(workload) } });
        merge(&mut fields, more);
        Self::ready(Self::begin(site, workload, &fields))
    }

    /// Waits until it is.
    #[track_caller]
    pub fn ready(self) -> Self {
        eventually("the sidecar is ready", || (self.admin.get("/readyz")?.status == 200).then_some(()));
        self
    }

    /// Not waited for. `fields`: of the bootstrap, `controlPlane` at least.
    pub fn begin(site: &Site, workload: &str, fields: &Value) -> Self {
        Self::begin_as(Command::new(binary("ringfence-proxy")), site, workload, fields)
    }

    /// The same by a command that ends in the program: elsewhere, or as another user.
    pub fn begin_as(mut command: Command, site: &Site, workload: &str, fields: &Value) -> Self {
        let dir = site.beside().join(workload);
        fs::create_dir_all(&dir).unwrap();
        let (state, log, socket) = (dir.join("state"), dir.join("access.log"), dir.join("admin"));
        let mut bootstrap = json!({
            "workload": workload,
            "admin": format!("unix:{}", socket.display()),
            "stateDir": state,
            "accessLog": { "file": log },
            "drainSeconds": 20,
        });
        merge(&mut bootstrap, fields);
        let file = dir.join("bootstrap.json");
        fs::write(&file, bootstrap.to_string()).unwrap();
        let process = Process::start(command.arg("run").arg("--bootstrap").arg(&file));
        Self { process, admin: Admin(socket), log: AccessLog(log), state }
    }

    /// Another process on the same bootstrap file, which takes over. Not waited for.
    pub fn take_over(&self) -> Process {
        self.take_over_by(Command::new(binary("ringfence-proxy")))
    }

    /// The same by a command that ends in the program.
    pub fn take_over_by(&self, mut command: Command) -> Process {
        Process::start(command.arg("run").arg("--take-over").arg("--bootstrap").arg(self.bootstrap()))
    }

    /// Its bootstrap file.
    pub fn bootstrap(&self) -> PathBuf {
        self.state.with_file_name("bootstrap.json")
    }

    /// Whether the process is the one that has the state directory.
    pub fn is_served_by(&self, process: &Process) -> bool {
        fs::read_to_string(self.state.join("lock")).is_ok_and(|owner| owner.trim() == process.pid().to_string())
    }

    /// Waits until a process that takes over has; yields the one from which it has.
    #[track_caller]
    pub fn succeeded_by(&mut self, mut successor: Process) -> Process {
        eventually("the state directory is the new process's", || {
            assert!(successor.is_running(), "the new process ended:\n{}", successor.lines().join("\n"));
            self.is_served_by(&successor).then_some(())
        });
        std::mem::replace(&mut self.process, successor)
    }

    /// Where it listens first, once it does.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.admin.address()
    }
}

fn merge(fields: &mut Value, more: &Value) {
    for (name, value) in more.as_object().expect("fields") {
        fields[name] = value.clone();
    }
}

/// An admin endpoint on a Unix socket.
#[derive(Clone, Debug)]
pub struct Admin(PathBuf);

impl Admin {
    #[track_caller]
    pub(crate) fn of_bootstrap(file: &Path) -> Self {
        eventually("the sidecar has a bootstrap file", || {
            let bootstrap: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
            Some(Self(bootstrap["admin"].as_str()?.strip_prefix("unix:")?.into()))
        })
    }

    /// `None`: nobody answers.
    pub fn get(&self, path: &str) -> Option<http::Reply> {
        self.request("GET", path)
    }

    pub fn request(&self, method: &str, path: &str) -> Option<http::Reply> {
        http::unix(&self.0, method, path).ok()
    }

    /// What is in force, once the sidecar answers.
    #[track_caller]
    pub fn config(&self) -> Value {
        eventually("/config answers", || self.get("/config")?.json())
    }

    /// Waits until what is in force is as wanted.
    #[track_caller]
    pub fn config_where(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || self.get("/config")?.json().filter(&wanted))
    }

    /// Where the listeners are bound, in the spec's order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let config = self.config();
        let listeners = config["listeners"].as_array().into_iter().flatten();
        listeners.filter_map(|listener| listener["address"].as_str()?.parse().ok()).collect()
    }

    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        eventually("a listener is bound", || self.addresses().first().copied())
    }

    /// Where the first listener of this route ("inbound", "outbound", "dns") is bound, once it is.
    #[track_caller]
    pub fn listener(&self, route: &str) -> SocketAddr {
        eventually(&format!("a listener of {route} is bound"), || {
            let config = self.config();
            let listener = config["listeners"].as_array()?.iter().find(|listener| listener["route"] == route)?;
            listener["address"].as_str()?.parse().ok()
        })
    }

    /// The value of a metric's only series, or of the one whose labels contain `label`.
    #[track_caller]
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let text = eventually("/metrics answers", || Some(self.get("/metrics")?.text()));
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} {label} in:\n{text}"))
    }
}

/// An access log: a file of lines of JSON.
#[derive(Clone, Debug)]
pub struct AccessLog(pub PathBuf);

impl AccessLog {
    pub fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// The line of the first request to `path`, once it is written.
    #[track_caller]
    pub fn line(&self, path: &str) -> Value {
        self.line_where(path, |_| true)
    }

    #[track_caller]
    pub fn line_where(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.find(&format!("a line of {path}"), |line| line["path"] == path && fits(line))
    }

    /// The first line that fits, once it is written. `what`: is it, for who reads that there was none.
    #[track_caller]
    pub fn find(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the access log has {what}"), || self.lines().into_iter().find(&fits))
    }

    /// All that is written by now.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        // The last line may still be half there.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}
