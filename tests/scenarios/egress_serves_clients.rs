//! Programs of other makes go through the proxy as their own conventions have it: `HTTP_PROXY`, `HTTPS_PROXY`. What is not installed is
//! skipped and says so; `tests/run` installs it.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use ringfence_tests::{Egress, Upstream, tls};

struct Clients {
    egress: Egress,
    secure: Upstream,
    open: Upstream,
}

impl Clients {
    fn start() -> Self {
        Self::with(Upstream::start())
    }

    fn with(open: Upstream) -> Self {
        let secure = Upstream::tls("secure.test");
        let egress = Egress::allowing(&format!(
            "[{{ name: secure, hosts: [secure.test], ports: [{}] }}, {{ name: open, hosts: [open.test], ports: [{}], protocol: http }}]",
            secure.address.port(),
            open.address.port()
        ));
        // The clients themselves know no names.
        for name in ["secure.test", "open.test", "evil.test"] {
            egress.dns.set(name, &["127.0.0.1"]);
        }
        fs::write(egress.site.beside().join("authority.pem"), tls::authority()).unwrap();
        Self { egress, secure, open }
    }

    fn authority(&self) -> PathBuf {
        self.egress.site.beside().join("authority.pem")
    }

    fn secure(&self, path: &str) -> String {
        format!("https://secure.test:{}{path}", self.secure.address.port())
    }

    fn open(&self, path: &str) -> String {
        format!("http://open.test:{}{path}", self.open.address.port())
    }

    /// Told of the proxy as programs are.
    fn run(&self, command: &mut Command) -> Output {
        let proxy = format!("http://{}", self.egress.address);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env(name, &proxy);
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy").stdin(Stdio::null()).output().unwrap()
    }
}

/// Whether a program is there; says so where it is not.
#[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        println!("skipped: needs {program}");
    }
    found
}

/// The interpreter of `tests/run`'s virtual environment, if it has this module.
#[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
fn python(module: &str) -> Option<Command> {
    let test = env::current_exe().unwrap();
    let python = test.ancestors().nth(3).unwrap().join("venv/bin/python");
    let has_module = |status: std::process::ExitStatus| status.success();
    if Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status().is_ok_and(has_module) {
        return Some(Command::new(python));
    }
    println!("skipped: needs the Python package {module}");
    None
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn curl() {
    if !has("curl") {
        return;
    }
    let clients = Clients::start();
    let curl = |url: &str| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_connect} %{http_code}", "--cacert"]);
        said(&clients.run(command.arg(clients.authority()).arg(url)))
    };
    assert_eq!(curl(&clients.secure("/curl")), "200 200");
    assert_eq!(curl(&clients.open("/curl")), "000 200");
    assert_eq!((clients.secure.count("/curl"), clients.open.count("/curl")), (1, 1));
    assert_eq!(curl("https://evil.test/"), "403 000");
    assert_eq!(curl("http://evil.test/"), "000 403");
    assert_eq!(curl("http://169.254.169.254/latest/meta-data/"), "000 403");
}

#[test]
fn git() {
    if !has("git") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("work");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "init.defaultBranch=main"]).args(arguments);
        let output = command.current_dir(dir.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "--quiet", "work"]);
    fs::write(repository.join("file"), "content").unwrap();
    git(&["-C", "work", "add", "file"]);
    git(&["-C", "work", "commit", "--quiet", "--message", "one"]);
    git(&["clone", "--quiet", "--bare", "work", "files/work.git"]);
    // The protocol of plain files (gitprotocol-http(5), "dumb").
    git(&["-C", "files/work.git", "update-server-info"]);
    let clients = Clients::with(Upstream::files(&dir.path().join("files")));
    let clone = |url: &str, to: &str| {
        let mut command = Command::new("git");
        let command = command.args(["clone", "--quiet", url]).arg(dir.path().join(to)).env("GIT_TERMINAL_PROMPT", "0");
        clients.run(command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", dir.path()))
    };
    let output = clone(&clients.open("/work.git"), "cloned");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(dir.path().join("cloned/file")).unwrap(), "content");
    let output = clone("http://evil.test/work.git", "evil");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("403"), "{output:?}");
}

#[test]
fn python_requests() {
    let Some(mut python) = python("requests") else { return };
    let clients = Clients::start();
    let script = "
import requests, sys
secure, plain = sys.argv[1:]
print(requests.get(secure, timeout=20).status_code, requests.get(plain, timeout=20).status_code, requests.get('http://evil.test/', timeout=20).json()['reason'])
try:
    requests.get('https://evil.test/', timeout=20)
except requests.exceptions.ProxyError as error:
    print('403' in str(error))
";
    python.arg("-c").arg(script).arg(clients.secure("/requests")).arg(clients.open("/requests"));
    let output = clients.run(python.env("REQUESTS_CA_BUNDLE", clients.authority()));
    assert_eq!(said(&output), "200 200 egress_host_not_listed\nTrue", "{output:?}");
    assert_eq!((clients.secure.count("/requests"), clients.open.count("/requests")), (1, 1));
}

/// Node reads the variables since 24 and 22.21; before, a program makes the tunnel itself, as agents for Node do.
#[test]
fn node() {
    if !has("node") {
        return;
    }
    let clients = Clients::start();
    let script = "
const [secure, plain] = process.argv.slice(1), http = require('http'), https = require('https');
const proxy = new URL(process.env.HTTP_PROXY), [major, minor] = process.versions.node.split('.').map(Number);
if (major >= 24 || (major === 22 && minor >= 21)) {
  const get = url => fetch(url).then(reply => reply.status, error => String(error.cause));
  Promise.all([get(secure), get(plain), get('http://evil.test/')]).then(all => console.log(all.join(' ')));
} else {
  const status = (library, options) => new Promise(done => library.get(options, reply => { reply.resume(); done(reply.statusCode); }).on('error', done));
  const absolute = url => status(http, { host: proxy.hostname, port: proxy.port, path: url, headers: { host: new URL(url).host } });
  const tunnel = url => new Promise(done => {
    const { host, hostname } = new URL(url);
    http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: host, headers: { host } })
      .on('connect', (reply, socket) => done(status(https, { createConnection: () => require('tls').connect({ socket, servername: hostname }), path: new URL(url).pathname, headers: { host } })))
      .end();
  });
  Promise.all([tunnel(secure), absolute(plain), absolute('http://evil.test/')]).then(all => { console.log(all.join(' ')); process.exit(); });
}
";
    let mut node = Command::new("node");
    node.args(["-e", script]).arg(clients.secure("/node")).arg(clients.open("/node"));
    let output = clients.run(node.env("NODE_USE_ENV_PROXY", "1").env("NODE_EXTRA_CA_CERTS", clients.authority()));
    assert_eq!(said(&output), "200 200 403", "{output:?}");
    assert_eq!((clients.secure.count("/node"), clients.open.count("/node")), (1, 1));
}

#[test]
fn grpc() {
    let Some(mut python) = python("grpc") else { return };
    let clients = Clients::start();
    let script = "
import grpc, sys
secure, plain, evil, authority = sys.argv[1:]
def call(channel):
    try:
        return channel.unary_unary('/echo.Echo/Say')(b'word', timeout=20, wait_for_ready=False).decode()
    except grpc.RpcError as error:
        return error.code().name
credentials = grpc.ssl_channel_credentials(open(authority, 'rb').read())
print(call(grpc.secure_channel(secure, credentials)), call(grpc.insecure_channel(plain)), call(grpc.insecure_channel(evil)))
";
    python.arg("-c").arg(script).arg(format!("secure.test:{}", clients.secure.address.port()));
    python.arg(format!("open.test:{}", clients.open.address.port())).arg("evil.test:50051").arg(clients.authority());
    let output = clients.run(&mut python);
    assert_eq!(said(&output), "word word UNAVAILABLE", "{output:?}");
    assert_eq!((clients.secure.count("/echo.Echo/Say"), clients.open.count("/echo.Echo/Say")), (1, 1));
}
