//! One `ringfence-proxy` process: started, its diagnostics passed on, started again when it dies, stopped in peace.

use std::{
    fs, io,
    io::Write,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::watch,
};

use crate::{
    say::say,
    signing::{self, PUBLIC_KEY},
    trust::{DEFAULT_JOIN_TTL, Trust},
};

/// Waits between restarts double from the first to the last of these.
const RESTART_FIRST: Duration = Duration::from_millis(500);
const RESTART_LAST: Duration = Duration::from_secs(30);
/// A sidecar drains within its own deadline; one that does not is killed this much later.
const DRAIN: Duration = Duration::from_secs(5);
const STOP: Duration = Duration::from_secs(8);

/// Where one sidecar keeps and finds things.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// Survives restarts: bootstrap, last known good, access log.
    pub(super) state: PathBuf,
    /// A Unix socket; short, because its path may have 107 bytes only.
    pub(super) admin: PathBuf,
    /// Of the control plane that this sidecar is to believe.
    config_keys: PathBuf,
}

impl Paths {
    pub(super) fn new(state: &Path, sockets: &Path, workload: &str) -> Self {
        Self {
            state: state.join(workload),
            admin: sockets.join(format!("{workload}.admin")),
            config_keys: state.join(signing::DIR).join(PUBLIC_KEY),
        }
    }

    pub(super) fn access_log(&self) -> PathBuf {
        self.state.join("access.log")
    }
}

/// How sidecars come to the control plane, and become who they are.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    /// Where it listens for TLS.
    pub(super) control_plane: SocketAddr,
    pub(super) trust: Arc<Trust>,
}

/// A running sidecar and the task that keeps it running.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) paths: Paths,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Sidecar {
    pub(super) async fn start(program: &Path, workload: &str, paths: Paths, joining: Joining) -> io::Result<Self> {
        let bootstrap = write_bootstrap(workload, &paths, &joining)?;
        end_orphan(&paths.state).await?;
        let (stop, stopped) = watch::channel(false);
        // The first start must succeed: a missing program is the operator's to mend.
        let start = Start { program: program.to_owned(), workload: workload.to_owned(), bootstrap, trust: joining.trust };
        let child = start.spawn().await?;
        let task = tokio::spawn(start.keep(child, stopped));
        Ok(Self { paths, stop, task })
    }

    /// Ends it: SIGTERM, which drains; SIGKILL if it does not end.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

fn write_bootstrap(workload: &str, paths: &Paths, joining: &Joining) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&paths.state)?;
    let path = paths.state.join("bootstrap.json");
    let bootstrap = json!({
        "workload": workload,
        "controlPlane": { "tls": joining.control_plane },
        "identity": {
            "trustDomain": joining.trust.trust_domain().as_str(),
            "bundle": joining.trust.bundle_file(),
            "source": { "controlPlane": { "joinToken": "stdin" } },
        },
        "configKeys": paths.config_keys,
        "admin": format!("unix:{}", paths.admin.display()),
        "stateDir": paths.state,
        "accessLog": { "file": paths.access_log() },
        "drainSeconds": DRAIN.as_secs(),
    });
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    writeln!(file, "{bootstrap:#}")?;
    Ok(path)
}

/// What it takes to start a sidecar, again and again.
struct Start {
    program: PathBuf,
    workload: String,
    bootstrap: PathBuf,
    trust: Arc<Trust>,
}

impl Start {
    async fn spawn(&self) -> io::Result<Child> {
        let token = self.trust.join_token(&self.workload, DEFAULT_JOIN_TTL).map_err(io::Error::other)?;
        let mut child = Command::new(&self.program)
            .arg("run")
            .arg("--bootstrap")
            .arg(&self.bootstrap)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole process group; the sidecars are stopped by us, in order.
            .process_group(0)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Through a pipe, which others cannot look into as they can into arguments and environment. It holds more than this: nothing
            // waits for the sidecar, and one that has ended already has no use for it.
            let _ = stdin.write_all(format!("{token}\n").as_bytes()).await;
        }
        Ok(child)
    }

    async fn keep(self, mut child: Child, mut stopped: watch::Receiver<bool>) {
        let workload = &self.workload;
        let mut pause = RESTART_FIRST;
        loop {
            let started = tokio::time::Instant::now();
            pass_on(workload, &mut child);
            tokio::select! {
                status = child.wait() => match status {
                    Ok(status) => say(format_args!("{workload}: the sidecar ended ({status}); it is started again")),
                    Err(error) => say(format_args!("{workload}: cannot wait for the sidecar: {error}")),
                },
                _ = stopped.changed() => return end(&mut child).await,
            }
            if started.elapsed() > RESTART_LAST {
                pause = RESTART_FIRST;
            }
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stopped.changed() => return,
                }
                pause = (pause * 2).min(RESTART_LAST);
                match self.spawn().await {
                    Ok(next) => {
                        child = next;
                        break;
                    }
                    Err(error) => say(format_args!("{workload}: cannot start the sidecar: {error}")),
                }
            }
        }
    }
}

/// The sidecar's diagnostics, line by line, with its name before them.
fn pass_on(workload: &str, child: &mut Child) {
    let Some(stderr) = child.stderr.take() else { return };
    let workload = workload.to_owned();
    tokio::spawn(async move {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        // Read to its end whatever it holds: a full pipe would stop the sidecar.
        while stderr.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(line.trim_ascii_end());
            say(format_args!("{workload}: {}", text.strip_prefix("ringfence-proxy: ").unwrap_or(&text)));
            line.clear();
        }
    });
}

/// Ends the sidecar of an earlier `up` that was killed: it has served on, as it should, and gives way to the one that is started now.
async fn end_orphan(state: &Path) -> io::Result<()> {
    let path = state.join("lock");
    let Ok(lock) = fs::OpenOptions::new().write(true).open(&path) else { return Ok(()) };
    if lock.try_lock().is_ok() {
        return Ok(());
    }
    let pid = fs::read_to_string(&path)?.trim().parse().ok().filter(|pid| is_sidecar(*pid));
    let Some(pid) = pid else { return Err(io::Error::other(format!("{} is locked by another program", path.display()))) };
    terminate(pid);
    let freed = tokio::task::spawn_blocking(move || lock.lock());
    tokio::time::timeout(STOP, freed)
        .await
        .map_err(|_| io::Error::other(format!("the sidecar that an earlier run left (pid {pid}) does not end")))??
}

/// By the name that its program gave the process: where its program lies is not for others to see.
fn is_sidecar(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "ringfence-proxy")
}

fn terminate(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // Gone already, if this fails.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        terminate(pid.cast_signed());
    }
    if tokio::time::timeout(STOP, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
