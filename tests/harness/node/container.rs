//! A container: a process with a root, a host name, a user and capabilities of its own.
//!
//! It has no process namespace of its own, which a runtime would give it: what it sees of the others' processes, it sees of the machine's,
//! and nothing but their users keeps it from them.

use std::{fmt::Write, path::Path, process::Command};

use super::{
    image::Image,
    spec::{Container, PodSecurityContext},
};
use crate::{netns::Namespace, process::Process};

/// What containerd gives to those of whom nothing is said.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "net_raw",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A directory of the node's, where a container has it.
pub(super) struct Bind {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) read_only: bool,
}

/// How a container's processes are started.
pub(super) struct Runtime {
    name: String,
    read_only: bool,
    binds: Vec<Bind>,
    image: Image,
    /// Arguments of setpriv(1) and env(1), up to the program.
    prelude: Vec<String>,
    command: Vec<String>,
}

impl Runtime {
    /// `env`: all of it, but for what every container has.
    pub(super) fn new(container: &Container, pod: &PodSecurityContext, binds: Vec<Bind>, env: &[(String, String)]) -> Result<Self, String> {
        let image = Image::find(&container.image)?;
        let mut command = container.command.clone().unwrap_or_else(|| image.entrypoint.clone());
        command.extend(container.args.iter().cloned());
        if command.is_empty() {
            return Err(format!("container {}: neither it nor its image has a command", container.name));
        }
        let is_reference = |word: &String| env.iter().any(|(name, _)| word.contains(&format!("$({name})")));
        if let Some(word) = command.iter().find(|word| is_reference(word)) {
            return Err(format!("container {}: {word:?}: variables are not put into commands here", container.name));
        }
        let mut prelude = privileges(container, pod, &image)?;
        prelude.extend(["--", "env", "-i"].map(str::to_owned));
        prelude.push(format!("PATH={PATH}"));
        prelude.push("HOME=/".into());
        prelude.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
        let read_only = container.security_context.read_only_root_filesystem;
        Ok(Self { name: container.name.clone(), read_only, binds, image, prelude, command })
    }

    /// `dir`: of the pod, with its `etc`.
    pub(super) fn start(&self, network: &Namespace, host: &str, dir: &Path) -> Process {
        let mut command = network.command("unshare");
        command.args(["--mount", "--uts", "--ipc", "sh", "-c", &self.root(host, dir), "container"]);
        Process::start(command.args(&self.prelude).args(&self.command))
    }

    /// Another program in the container whose process this is.
    pub(super) fn enter(&self, process: &Process) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &process.pid().to_string(), "--mount", "--net", "--uts", "--ipc", "setpriv"]);
        command.args(&self.prelude);
        command
    }

    /// A script that makes the root, enters it and becomes the program.
    fn root(&self, host: &str, dir: &Path) -> String {
        let root = dir.join("roots").join(&self.name);
        let mut script = format!(
            "set -eu\n\
             echo {host} > /proc/sys/kernel/hostname\n\
             mkdir -p {root}; mount -t tmpfs -o mode=755 root {root}; cd {root}\n\
             mkdir -p usr proc dev tmp .outside; chmod 1777 tmp\n\
             for link in bin sbin lib lib64; do ln -s usr/$link $link; done\n\
             cp -a {dir}/etc etc\n\
             mount --bind /usr usr; mount -o remount,bind,ro usr\n\
             mount -t tmpfs -o mode=755 bin usr/local/bin\n\
             mount --rbind /proc proc; mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys\n\
             for device in null zero full random urandom; do touch dev/$device; mount --bind /dev/$device dev/$device; done\n",
            host = quoted(host),
            root = quoted(&root.display().to_string()),
            dir = quoted(&dir.display().to_string()),
        );
        for program in &self.image.programs {
            let name = program.file_name().unwrap_or_default().display().to_string();
            let program = quoted(&program.display().to_string());
            let _ = writeln!(script, "touch usr/local/bin/{name}; mount --bind {program} usr/local/bin/{name}");
        }
        for Bind { from, to, read_only } in &self.binds {
            let (from, to) = (quoted(from), quoted(&format!("./{to}")));
            let _ = writeln!(script, "mkdir -p {to}; mount --bind {from} {to}");
            if *read_only {
                let _ = writeln!(script, "mount -o remount,bind,ro {to}");
            }
        }
        script.push_str("pivot_root . .outside; umount -l /.outside; rmdir /.outside\n");
        if self.read_only {
            script.push_str("mount -o remount,ro /\n");
        }
        script.push_str("cd /; exec setpriv \"$@\"\n");
        script
    }
}

/// Arguments of setpriv(1). A runtime gives a program of root all that may come to it, and another's nothing.
fn privileges(container: &Container, pod: &PodSecurityContext, image: &Image) -> Result<Vec<String>, String> {
    let own = &container.security_context;
    let user = own.run_as_user.or(pod.run_as_user).unwrap_or(image.user);
    let group = own.run_as_group.or(pod.run_as_group).unwrap_or(image.user);
    if user == 0 && own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        return Err(format!("container {}: runAsNonRoot, and it would run as root", container.name));
    }
    let groups: Vec<String> = pod.supplemental_groups.iter().chain(&pod.fs_group).map(ToString::to_string).collect();
    let mut arguments = vec![format!("--reuid={user}"), format!("--regid={group}")];
    arguments.push(if groups.is_empty() { "--clear-groups".into() } else { format!("--groups={}", groups.join(",")) });
    let bounding: String = capabilities(container).iter().map(|name| format!(",+{name}")).collect();
    arguments.push(format!("--bounding-set=-all{bounding}"));
    arguments.extend(["--inh-caps=-all", "--ambient-caps=-all"].map(str::to_owned));
    if own.allow_privilege_escalation == Some(false) {
        arguments.push("--no-new-privs".into());
    }
    Ok(arguments)
}

fn capabilities(container: &Container) -> Vec<String> {
    let named = |names: &[String]| names.iter().map(|name| name.trim_start_matches("CAP_").to_ascii_lowercase()).collect::<Vec<_>>();
    let (add, drop) = (named(&container.security_context.capabilities.add), named(&container.security_context.capabilities.drop));
    let is_dropped = |name: &str| drop.iter().any(|dropped| dropped == "all" || dropped == name);
    let default = DEFAULT_CAPABILITIES.iter().filter(|name| !is_dropped(name) && !add.iter().any(|added| added == *name));
    default.map(ToString::to_string).chain(add.iter().cloned()).collect()
}

/// A word of a script.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
