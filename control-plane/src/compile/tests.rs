use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use prost::Message;
use ringfence_xds::generated::resource as proto;

use super::*;
use crate::spec::{self, Parsed};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/spec")
}

/// Parses `text` as the file `name` of the fixtures' folder.
fn parse(name: &str, text: &[u8]) -> Parsed {
    spec::parse(&Path::new(name).into(), text, |path: &Path| fs::read(data().join(path)))
}

fn faults_of(parsed: &Parsed) -> Vec<Fault> {
    let mut faults = parsed.faults.clone();
    faults.extend(parsed.left_out.iter().cloned());
    faults.extend(compile(&parsed.objects, &parsed.unread()).faults());
    faults.sort();
    faults
}

/// Each `<fault>.yaml` gives exactly the lines of `<fault>.faults` (no such file: none).
#[test]
fn every_fault_is_told_where_it_stands() {
    let mut wrong = String::new();
    let mut cases = 0;
    for path in spec::scan(&data(), |_| ()).unwrap().files.into_keys() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let told: String = faults_of(&parse(name, &fs::read(&path).unwrap())).iter().map(|fault| format!("{fault}\n")).collect();
        let wanted = match fs::read_to_string(path.with_extension("faults")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.unwrap(),
        };
        if told != wanted {
            wrong += &format!("\n{name}\nwanted:\n{wanted}told:\n{told}");
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases > 50, "the fixtures are missing: {cases}");
}

#[test]
fn long_documents_are_not_read() {
    let long = "---\na: 1\n".repeat(200_000) + "{" + &"a: b,\n".repeat(200_000) + "}";
    let parsed = parse("a.yaml", long.as_bytes());
    let told: Vec<_> = parsed.faults.iter().map(Fault::to_string).collect();
    assert_eq!(told, ["a.yaml:574762:1: document too long: at most 1024 KiB are read"]);
}

/// An issuer, a tenant per name and a shared workload over all of them, as one text.
fn installation(tenants: &[&str]) -> String {
    let object = |kind: &str, name: &str, spec: &str| {
        format!("---\napiVersion: ringfence.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let issuer = "{issuer: https://i.example, audiences: [a], algorithms: [ES256], jwks: {file: jwks.json}, tenantClaim: t}";
    let mut text = object("Issuer", "dev", issuer) + &object("Issuer", "other", issuer) + &object("Issuer", "unused", issuer);
    for tenant in tenants {
        text += &object("Tenant", tenant, &format!("{{identity: [{{issuer: other, values: [{tenant}-1, {tenant}/2]}}, {{issuer: dev}}]}}"));
    }
    text + &object("Workload", "any", "{tenants: [\"*\"], inbound: [{listen: 127.0.0.1:1, upstream: 127.0.0.1:2}]}")
}

fn names(resources: &[Resource]) -> Vec<String> {
    resources.iter().map(|resource| format!("{} {}", resource.kind, resource.name)).collect()
}

#[test]
fn objects_become_resources() {
    let parsed = parse("a.yaml", installation(&["acme"]).as_bytes());
    let compiled = compile(&parsed.objects, &parsed.unread());
    let [dev, _, _, acme, any] = &compiled.outcomes[..] else { panic!("{compiled:?}") };
    assert_eq!(names(dev.as_ref().unwrap()), ["Issuer dev"]);
    let acme = acme.as_ref().unwrap();
    assert_eq!(names(acme), ["Tenant acme", "Binding other/acme-1", "Binding other/acme/2", "Binding dev/acme"]);
    assert_eq!(proto::Binding::decode(&*acme[3].bytes).unwrap().tenant, "acme");
    // Sorted, and none that no tenant uses.
    assert_eq!(proto::Workload::decode(&*any.as_ref().unwrap()[0].bytes).unwrap().issuers, ["dev", "other"]);
}

#[test]
fn a_port_is_taken_in_its_own_network_alone() {
    let workload = |name: &str, egress: &str| {
        let text = format!(
            "apiVersion: ringfence.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{tenant: acme, \
             egress: {{listen: {egress}, capture: redirect}}, dns: {{listen: '127.0.0.1:15053'}}}}\n"
        );
        parse(&format!("{name}.yaml"), text.as_bytes()).objects.remove(0)
    };
    let parsed = parse("installation.yaml", installation(&["acme"]).as_bytes());
    let first = workload("first", "127.0.0.1:15001");
    for (second, shared, of_pods) in [("127.0.0.1:15001", 4, 0), ("127.0.0.1:15002", 2, 0), ("0.0.0.0:15053", 3, 2)] {
        let objects: Vec<_> = parsed.objects.iter().cloned().chain([first.clone(), workload("second", second)]).collect();
        let faults = |network| Compiler::new(network).compile(&objects, &BTreeSet::new()).faults();
        assert_eq!(faults(Network::Shared).len(), shared, "{second}: {:?}", faults(Network::Shared));
        assert_eq!(faults(Network::OfPods).len(), of_pods, "{second}: {:?}", faults(Network::OfPods));
    }
}

#[test]
fn peers_are_those_that_list_each_other() {
    let mut compiler = Compiler::default();
    let issuer = parse("issuer.yaml", installation(&[]).as_bytes()).objects;
    let tenant = |name: &str, peers: &str| {
        let text = format!(
            "apiVersion: ringfence.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: {name}}}\nspec: {{identity: [{{issuer: dev}}], peers: [{peers}]}}\n"
        );
        parse(&format!("{name}.yaml"), text.as_bytes()).objects.remove(0)
    };
    // The objects that nobody has edited are the same ones each time, as a store has them.
    let (acme, initech) = (tenant("acme", "globex, initech"), tenant("initech", "globex, acme"));
    for (of_globex, expected) in [
        ("", [&["initech"][..], &[], &["acme"]]),
        ("acme", [&["globex", "initech"], &["acme"], &["acme"]]),
        ("acme, initech", [&["globex", "initech"], &["acme", "initech"], &["acme", "globex"]]),
        ("initech", [&["initech"], &["initech"], &["acme", "globex"]]),
    ] {
        let tenants = [acme.clone(), tenant("globex", of_globex), initech.clone()];
        let objects: Vec<_> = tenants.into_iter().chain(issuer.iter().cloned()).collect();
        let compiled = compiler.compile(&objects, &BTreeSet::new());
        assert_eq!(compiled.faults(), [], "who lists whom in vain is nobody's to know");
        let peers = |outcome: &Outcome| proto::Tenant::decode(&*outcome.as_ref().unwrap()[0].bytes).unwrap().peers;
        let got: Vec<_> = compiled.outcomes[..3].iter().map(peers).collect();
        assert_eq!(got, expected, "globex lists {of_globex:?}");
    }
}

#[test]
fn absent_and_empty_lists_of_rules_differ() {
    let inbound = |text: &str| {
        let text = installation(&["acme"]).replace("{issuer: dev}]}", &format!("{{issuer: dev}}]{text}}}"));
        let parsed = parse("a.yaml", text.as_bytes());
        let compiled = compile(&parsed.objects, &parsed.unread());
        assert_eq!(faults_of(&parsed), []);
        proto::Tenant::decode(&*compiled.outcomes[3].as_ref().unwrap()[0].bytes).unwrap().inbound
    };
    assert_eq!((inbound(""), inbound(", inbound: {}")), (None, None), "everywhere");
    assert_eq!(inbound(", inbound: {allow: []}"), Some(proto::TenantInbound { allow: vec![] }), "nowhere");
}

#[test]
fn files_of_a_listener_are_found_beside_the_object() {
    let text = installation(&[]).replace("listen: ", "tls: {certificate: tls/cert.pem, key: /etc/key.pem}, listen: ");
    let parsed = spec::parse(&Path::new("/etc/ringfence/a.yaml").into(), text.as_bytes(), |_: &Path| fs::read(data().join("jwks.json")));
    assert_eq!(faults_of(&parsed), []);
    let compiled = compile(&parsed.objects, &parsed.unread());
    let workload = compiled.resources().last().unwrap();
    let tls = proto::Workload::decode(&*workload.bytes).unwrap().inbound[0].tls.clone().unwrap();
    assert_eq!((tls.certificate.as_str(), tls.key.as_str()), ("/etc/ringfence/tls/cert.pem", "/etc/key.pem"));
    assert_eq!(parsed.needs, [Path::new("/etc/ringfence/jwks.json"); 3]);
}

#[test]
fn a_fault_is_its_objects_alone() {
    let text = installation(&["acme", "globex"]).replace("globex-1", "acme-1");
    let parsed = parse("a.yaml", text.as_bytes());
    let compiled = compile(&parsed.objects, &parsed.unread());
    let faulty: Vec<_> =
        parsed.objects.iter().zip(&compiled.outcomes).filter(|(_, o)| o.is_err()).map(|(o, _)| o.key.to_string()).collect();
    // A claim value of two tenants: neither may have it. The workload that serves them is well.
    assert_eq!(faulty, ["Tenant/acme", "Tenant/globex"]);
}

#[test]
fn of_two_objects_of_one_name_the_first_stands() {
    let objects = |text: &str, file: &str| parse(file, text.as_bytes()).objects;
    let (b, a) = (objects(&installation(&[]), "b.yaml"), objects(&installation(&[]), "a.yaml"));
    // By file, in whatever order they are given.
    let compiled = compile(&[&b[..], &a[..]].concat(), &BTreeSet::new());
    assert_eq!(compiled.outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, false, false, true, true, true, true]);
    assert_eq!(compiled.faults()[0].message, "Issuer/dev already stands at a.yaml:2");
}

#[test]
fn a_reference_to_an_object_that_could_not_be_read_is_no_fault_of_its_own() {
    let text = installation(&["acme"]).replace("tenants: [\"*\"]", "tenants: [acme, globex]");
    let parsed = parse("a.yaml", text.as_bytes());
    let globex = ObjectKey { kind: Kind::Tenant, name: "globex".into() };
    assert_eq!(compile(&parsed.objects, &BTreeSet::from([globex])).faults(), []);
    assert_eq!(compile(&parsed.objects, &BTreeSet::new()).faults().len(), 1);
}

/// Bytes that look like a file of ours, more or less.
fn nearly_a_file() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] = &[
        "apiVersion: ringfence.dev/v1alpha1\n",
        "kind: Tenant\n",
        "kind: Workload\n",
        "kind: Issuer\n",
        "metadata: {name: a}\n",
        "spec:\n",
        "  ",
        "- ",
        "? ",
        ": ",
        "identity",
        "inbound",
        "tenants",
        "limits",
        "jwks: {inline: ",
        "&a ",
        "*a",
        "!!str ",
        "!",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\n",
        "\r\n",
        "\t",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "#",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "<<",
        "~",
        "0x",
        "-1",
        "1e999",
        ".nan",
        "\u{feff}",
        "\u{85}",
        "ä",
        "\\",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_that_a_file_holds_panics_or_takes_two_lines(bytes in nearly_a_file()) {
        let parsed = parse("a.yaml", &bytes);
        let faults = faults_of(&parsed);
        prop_assert!(!parsed.objects.is_empty() || !faults.is_empty(), "silence");
        for fault in faults {
            let line = fault.to_string();
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }
    }

    /// Any one change to a good file gives a good file or a fault, never a panic; the objects before the change stay.
    #[test]
    fn a_damaged_file_is_read_or_refused(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = installation(&["acme", "globex"]).into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = with }
        faults_of(&parse("a.yaml", &bytes));
    }
}
