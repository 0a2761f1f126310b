//! Whatever a pod looks like: no panic, a second pass that changes nothing, the pod's own as it was.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

fn word() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a",
        "b",
        "ringfence-proxy",
        "ringfence-capture",
        "ringfence-token",
        "ringfence-state",
        "ringfence-trust",
        "Always",
        "None",
        "ClusterFirst",
        "NET_ADMIN",
        "é/~",
        "",
    ])
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => word().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => select(vec![0, 1, 64_015, -1]).prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

/// An object of some of these fields.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let fields: Vec<_> =
        fields.into_iter().map(|(name, value)| proptest::option::weighted(0.4, value).prop_map(move |value| (name, value))).collect();
    fields
        .prop_map(|fields| {
            fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<serde_json::Map<_, _>>().into()
        })
        .boxed()
}

fn list(item: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop_oneof![9 => vec(item, 0..4).prop_map(Value::from), 1 => leaf()].boxed()
}

fn container() -> BoxedStrategy<Value> {
    let named = || object(vec![("name", word().prop_map(Value::from).boxed()), ("value", leaf().boxed()), ("mountPath", leaf().boxed())]);
    let context = object(vec![("runAsUser", leaf().boxed()), ("capabilities", object(vec![("add", list(leaf().boxed()))]))]);
    let fields = object(vec![
        ("image", word().prop_map(Value::from).boxed()),
        ("env", list(named())),
        ("volumeMounts", list(named())),
        ("restartPolicy", word().prop_map(Value::from).boxed()),
        ("securityContext", context),
        ("unknown", leaf().boxed()),
    ]);
    (word(), fields)
        .prop_map(|(name, mut container)| {
            container["name"] = name.into();
            container
        })
        .boxed()
}

fn any_pod() -> impl Strategy<Value = Value> {
    let volume = object(vec![("name", word().prop_map(Value::from).boxed()), ("emptyDir", Just(json!({})).boxed()), ("x", leaf().boxed())]);
    let spec = object(vec![
        ("initContainers", list(container())),
        ("volumes", list(volume)),
        ("hostNetwork", leaf().boxed()),
        ("dnsPolicy", word().prop_map(Value::from).boxed()),
        ("dnsConfig", object(vec![("nameservers", list(leaf().boxed())), ("searches", list(word().prop_map(Value::from).boxed()))])),
        ("securityContext", object(vec![("sysctls", list(leaf().boxed())), ("fsGroup", leaf().boxed())])),
        ("resources", Just(json!({})).boxed()),
        ("unknown", leaf().boxed()),
    ]);
    (spec, vec(container(), 0..3)).prop_map(|(mut spec, containers)| {
        spec["containers"] = containers.into();
        pod(spec)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_second_pass_changes_nothing(pod in any_pod(), explicit: bool) {
        let settings = settings(if explicit { Capture::Explicit } else { Capture::Redirect });
        if let Ok(Injected { pod: once, .. }) = inject(&pod, ACME, &settings) {
            let twice = inject(&once, ACME, &settings);
            prop_assert_eq!(Ok(&once), twice.as_ref().map(|injected| &injected.pod));
            if !explicit {
                prop_assert_eq!(&pod["spec"]["containers"], &once["spec"]["containers"]);
            }
            prop_assert_eq!(&pod["spec"]["unknown"], &once["spec"]["unknown"]);
            let mut patched = pod.clone();
            let operations = json!(patch::of_spec(&pod, &once));
            json_patch::patch(&mut patched, &serde_json::from_value::<json_patch::Patch>(operations).unwrap()).unwrap();
            prop_assert_eq!(patched, once);
        }
    }

    #[test]
    fn no_body_is_too_odd(body in vec(any::<u8>(), 0..200)) {
        let _ = answered(&body, Ok("acme"), Capture::Redirect);
    }

    #[test]
    fn what_is_written_as_yaml_is_read_as_it_was(text in "[ -~\\n\\t\u{e9}\u{85}\u{2028}]{0,40}", number: i64) {
        let document = json!({"text": text, "list": [text.clone(), number], text.clone(): {"x": [[], {}, null, text]}});
        let manifests = manifest::Manifests { documents: vec![document.clone(), document], warnings: Vec::new() };
        let written = manifests.to_yaml().unwrap();
        prop_assert_eq!(manifest::Manifests::read(&written).unwrap().documents, manifests.documents, "{}", written);
    }
}
