//! The proof that a program lets out what is listed and nothing else, and writes it down.

use std::net::SocketAddr;

use crate::{
    Error,
    load::tunnel::{Asks, open},
    names::unlisted,
    target::Target,
};

/// `address`: where it is asked.
pub(super) fn enforces(target: &Target, address: SocketAddr, asks: Asks, names: &[String]) -> Result<(), Error> {
    let failed =
        |case: &str, what: String| Error::Unexpected(format!("{} does not enforce what it is timed for: {case}: {what}", target.name));
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return Ok(()) };
    // Who holds a name's addresses back until the first question has been asked may do so once.
    for name in [first, last, first] {
        open(address, name, asks).map_err(|error| failed(name, format!("not let through: {error}")))?;
    }
    let below = format!("below.{first}");
    let mut refused = vec![(unlisted(), asks), (below, asks)];
    if let Asks::Connect { port } = asks {
        refused.push(("127.0.0.1".into(), asks));
        refused.push((first.clone(), Asks::Connect { port: port ^ 1 }));
    }
    for (name, asks) in refused {
        if open(address, &name, asks).is_ok() {
            return Err(failed(&name, "let through".into()));
        }
    }
    target.check_log(3)
}
