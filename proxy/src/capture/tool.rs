//! Programs that know the kernel's rules: run without a shell, told what to do on their standard input.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

/// A program did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    #[error("{0} is not installed")]
    Missing(&'static str),
    #[error("{tool}: {message}")]
    Failed { tool: &'static str, message: String },
    #[error("{tool} cannot be run: {error}")]
    Io { tool: &'static str, error: io::Error },
}

/// Runs it with `input`, which must fit into a pipe (64 KiB); what it prints.
pub(super) fn run(tool: &'static str, arguments: &[&str], input: &str) -> Result<String, ToolError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ToolError::Missing(tool),
        _ => ToolError::Io { tool, error },
    };
    let mut child = Command::new(tool)
        .args(arguments)
        // Its words are looked at.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // That it does not read to the end it says itself.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| line.chars().any(char::is_alphanumeric)).collect();
    let message = if lines.is_empty() { output.status.to_string() } else { lines.join("; ") };
    Err(ToolError::Failed { tool, message })
}
