//! Ways out of this network namespace.

use std::fs;

use super::CaptureError;

/// All network devices but the loopback.
pub(super) fn devices() -> Result<Vec<String>, CaptureError> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").map_err(CaptureError::io("network devices"))?;
    names(&text).map(named).collect()
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).filter(|name| *name != "lo")
}

/// It is written into rules: only what needs no quoting there.
fn named(name: &str) -> Result<String, CaptureError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
    plain.then(|| name.to_owned()).ok_or_else(|| CaptureError::Refused(format!("a device named {name:?} cannot be named in a rule")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_leads_nowhere() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\ntunl0.5: 0 0\n";
        assert_eq!(names(text).collect::<Vec<_>>(), ["eth0", "tunl0.5"]);
    }

    #[test]
    fn a_name_that_would_end_its_quotes_is_refused() {
        assert!(named("eth0\"} accept").is_err());
        assert_eq!(named("eth0.5").unwrap(), "eth0.5");
    }
}
