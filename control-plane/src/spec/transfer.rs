//! What `spec.transfer` of a PolicyZone means.

use base64::{Engine, engine::general_purpose::STANDARD};
use ringfence_xds::policy::rpz::Name;

use super::{Fault, Object, TransferSpec, TransferTlsSpec, TsigSpec, fault::quoted};
use crate::feed::transfer::{Algorithm, Primary, Tls, TsigFault, TsigKey, check_address};

/// Reads the file that a field names: by the field's path and its value.
type Read<'a> = &'a mut dyn FnMut(&str, &str) -> Result<Vec<u8>, Fault>;

pub(super) fn primary(object: &Object, spec: &TransferSpec, read: Read<'_>) -> Result<Primary, Vec<Fault>> {
    let mut faults = Vec::new();
    if let Err(error) = check_address(&spec.primary) {
        faults.push(object.fault("spec.transfer.primary", format!("{error}, not {}", quoted(&spec.primary))));
    }
    let zone = name(object, "spec.transfer.zone", &spec.zone, &mut faults);
    let tsig = spec.tsig.as_ref().map(|spec| tsig(object, spec, read, &mut faults));
    let tls = spec.tls.as_ref().map(|spec| tls(object, spec, read, &mut faults));
    // Each that is missing here has told why.
    let Some(zone) = zone.filter(|_| faults.is_empty()) else { return Err(faults) };
    let primary = Primary::new(&spec.primary, zone, tsig.flatten(), tls.flatten());
    primary.map_err(|error| vec![object.fault("spec.transfer.primary", error.to_string())])
}

/// Absolute, with or without the dot at its end.
fn name(object: &Object, path: &str, text: &str, faults: &mut Vec<Fault>) -> Option<Name> {
    match text.parse::<Name>() {
        Ok(name) if !name.is_root() => return Some(name),
        Ok(_) => faults.push(object.fault(path, "must be a domain name below the root")),
        Err(error) => faults.push(object.fault(path, format!("must be a domain name: {error}, not {}", quoted(text)))),
    }
    None
}

fn tsig(object: &Object, spec: &TsigSpec, read: Read<'_>, faults: &mut Vec<Fault>) -> Option<TsigKey> {
    let name = name(object, "spec.transfer.tsig.name", &spec.name, faults);
    let algorithm = match spec.algorithm.as_deref() {
        None => Some(Algorithm::HmacSha256),
        Some(text) => text
            .parse()
            .map_err(|error: TsigFault| {
                faults.push(object.fault("spec.transfer.tsig.algorithm", format!("{error}, not {}", quoted(text))));
            })
            .ok(),
    };
    const SECRET: &str = "spec.transfer.tsig.secretFile";
    let secret = read(SECRET, &spec.secret_file).map_err(|fault| faults.push(fault)).ok()?;
    // What stands there is not repeated, whatever it is.
    let key = match STANDARD.decode(secret.trim_ascii()) {
        Ok(secret) => TsigKey::new(&name?, algorithm?, &secret),
        Err(_) => Err(TsigFault::Secret),
    };
    key.map_err(|error| faults.push(object.fault(SECRET, error.to_string()))).ok()
}

fn tls(object: &Object, spec: &TransferTlsSpec, read: Read<'_>, faults: &mut Vec<Fault>) -> Option<Tls> {
    let tls = Tls::new(&spec.server_name)
        .map_err(|error| faults.push(object.fault("spec.transfer.tls.serverName", format!("{error}, not {}", quoted(&spec.server_name)))))
        .ok();
    let Some(file) = &spec.ca_file else { return tls };
    const CA: &str = "spec.transfer.tls.caFile";
    let pem = read(CA, file).map_err(|fault| faults.push(fault)).ok()?;
    tls?.trust_only(&pem).map_err(|error| faults.push(object.fault(CA, error.to_string()))).ok()
}
