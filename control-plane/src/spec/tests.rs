use std::collections::BTreeSet;

use super::*;

/// What `shape` understands: a keyword that a type brings in and that is not here would be believed and not checked.
const KEYWORDS: &[&str] = &[
    "$schema",
    "title",
    "description",
    "default",
    "format",
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "anyOf",
    "minItems",
    "minimum",
    "maximum",
    "oneOf",
];

/// What `vocabulary` adds for API servers: of a file the decoder, and `compile`, say it better.
const OF_THE_DECODER: &[&str] = &[
    "enum",
    "maxItems",
    "maxLength",
    "pattern",
    super::vocabulary::FILE,
    super::vocabulary::RULES,
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
];

fn keywords<'a>(schema: &'a serde_json::Value, found: &mut BTreeSet<&'a str>) {
    let Some(schema) = schema.as_object() else { return };
    for (keyword, value) in schema {
        found.insert(keyword);
        match keyword.as_str() {
            "properties" => value.as_object().unwrap().values().for_each(|schema| keywords(schema, found)),
            "anyOf" => {
                assert_eq!(value[1], serde_json::json!({"type": "null"}), "only optional fields have a choice");
                keywords(&value[0], found);
            }
            "oneOf" => {
                let each_one_field = |choice: &serde_json::Value| {
                    choice.as_object().unwrap().len() == 1 && choice["required"].as_array().unwrap().len() == 1
                };
                assert!(value.as_array().unwrap().iter().all(each_one_field), "a choice is between fields, by their presence");
            }
            "items" | "additionalProperties" => keywords(value, found),
            _ => {}
        }
    }
}

#[test]
fn every_keyword_of_the_schemas_is_checked() {
    for kind in Kind::ALL {
        let mut found = BTreeSet::new();
        keywords(kind.schema(), &mut found);
        let unknown: Vec<_> = found.iter().filter(|keyword| !KEYWORDS.contains(keyword) && !OF_THE_DECODER.contains(keyword)).collect();
        assert!(unknown.is_empty(), "{kind}: {unknown:?}");
        assert_eq!(kind.schema()["additionalProperties"], false, "{kind}: unknown fields must be refused");
    }
}

#[test]
fn a_path_that_is_not_in_the_file_has_its_nearest_ancestors_place() {
    let text = "apiVersion: ringfence.dev/v1alpha1\nkind: Tenant\nmetadata:\n  name: a\n  labels: {\"x.y/z\": \"1\"}\nspec:\n  identity:\n    - issuer: i\n";
    let parsed = parse(&Path::new("a.yaml").into(), text.as_bytes(), |_: &Path| unreachable!());
    let object = &parsed.objects[0];
    for (path, line, col) in [
        ("", 1, 1),
        ("metadata.name", 4, 9),
        ("metadata.labels[\"x.y/z\"]", 5, 21),
        ("metadata.labels[\"x.other\"]", 5, 11),
        ("spec.identity[0].issuer", 8, 15),
        ("spec.identity[0].values[3]", 8, 7),
        ("spec.identity[1]", 8, 5),
        ("spec.limits[0].rate", 7, 3),
        ("nonsense", 1, 1),
    ] {
        assert_eq!(object.position(path), Position { line, col }, "{path}");
    }
}

#[test]
fn folders_are_read_in_depth_and_links_once() {
    let dir = tempfile::tempdir().unwrap();
    // As a mounted ConfigMap looks.
    std::fs::create_dir_all(dir.path().join("..2026/sub")).unwrap();
    std::fs::write(dir.path().join("..2026/sub/b.yml"), "").unwrap();
    std::fs::write(dir.path().join("..2026/a.yaml"), "").unwrap();
    for (link, target) in [("..data", "..2026"), ("a.yaml", "..data/a.yaml"), ("sub", "..data/sub"), ("loop", "."), ("again", "sub")] {
        std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
    }
    let found = scan(dir.path(), |_| ()).unwrap().files;
    let names: BTreeSet<_> = found.keys().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!((found.len(), names), (2, BTreeSet::from(["a.yaml", "b.yml"])));
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("a.yaml");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let parsed = read_directory(dir.path()).unwrap();
    assert_eq!(parsed.faults, [Fault::of_file(&fifo.into(), "cannot be read: not a regular file")]);
}

#[test]
fn paths_are_relative_to_their_file() {
    for (file, path, resolved) in [
        ("/etc/rf/a.yaml", "jwks.json", "/etc/rf/jwks.json"),
        ("/etc/rf/a.yaml", "./keys/../jwks.json", "/etc/rf/jwks.json"),
        ("/etc/rf/a.yaml", "../keys/jwks.json", "/etc/keys/jwks.json"),
        ("/etc/rf/a.yaml", "/run/jwks.json", "/run/jwks.json"),
        ("a.yaml", "../jwks.json", "../jwks.json"),
        ("a.yaml", "../../jwks.json", "../../jwks.json"),
        ("rf/a.yaml", "../jwks.json", "jwks.json"),
    ] {
        assert_eq!(resolve(Path::new(file), path), Path::new(resolved), "{file}: {path}");
    }
}

#[test]
fn a_file_of_any_name_is_told_in_one_line() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"a\n\x1b[1m\xff.yaml");
    std::fs::write(dir.path().join(name), "}").unwrap();
    let faults = read_directory(dir.path()).unwrap().faults;
    let place = format!("{}/a\u{fffd}\u{fffd}[1m\u{fffd}.yaml:1:1: ", dir.path().display());
    assert!(faults[0].to_string().starts_with(&place), "{:?}", faults[0].to_string());
    assert!(serde_json::to_value(&faults[0]).unwrap()["file"].as_str().is_some_and(|file| place.starts_with(file)));
}
