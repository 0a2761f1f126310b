//! Whatever stands in an operator's file, it becomes resources that no sidecar refuses, or faults of one line each at a place in the file.
#![no_main]

use std::{io, path::Path, sync::Arc};

use libfuzzer_sys::fuzz_target;
use ringfence_control_plane::{compile::compile, spec::parse};
use ringfence_xds::decode::check;

fuzz_target!(|input: &[u8]| {
    let file: Arc<Path> = Path::new("fuzz.yaml").into();
    let parsed = parse(&file, input, |path: &Path| match path.to_str() {
        Some("jwks.json") => Ok(include_bytes!("jwt.jwks.json").to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    });
    let compiled = compile(&parsed.objects, &parsed.unread());
    assert_eq!(compiled.outcomes.len(), parsed.objects.len());
    assert!(!(parsed.faults.is_empty() && parsed.objects.is_empty()), "a file vanished without a word");

    // A place right behind the last character is one, too.
    let lines = input.split(|&octet| octet == b'\n' || octet == b'\r').count() + 1;
    for fault in parsed.faults.iter().chain(&compiled.faults()) {
        let told = fault.to_string();
        assert!(!fault.message.is_empty() && !told.contains(char::is_control), "{told:?}");
        assert!((1..=lines).contains(&(fault.position.line as usize)) && fault.position.col >= 1, "{told}");
    }
    for resource in compiled.resources() {
        assert_eq!(check(resource), [], "{}/{}", resource.kind, resource.name);
    }
});
