use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        authentication::v1::UserInfo,
        core::v1::{PodSpec, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::*;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn authenticated() -> TokenReviewStatus {
    let extra = [(POD_NAME, "web-0"), (POD_UID, "u-1"), ("authentication.kubernetes.io/node-name", "n")];
    TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(vec![TOKEN_AUDIENCE.into()]),
        error: None,
        user: Some(UserInfo {
            username: Some("system:serviceaccount:acme-prod:web".into()),
            extra: Some(extra.map(|(key, value)| (key.into(), vec![value.into()])).into()),
            ..UserInfo::default()
        }),
    }
}

fn bound_to_web() -> Bound {
    bound(authenticated()).unwrap()
}

fn pod() -> Pod {
    Pod {
        metadata: ObjectMeta { name: Some("web-0".into()), uid: Some("u-1".into()), ..ObjectMeta::default() },
        spec: Some(PodSpec { service_account_name: Some("web".into()), ..PodSpec::default() }),
        status: Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() }),
    }
}

fn labels(labels: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
}

#[test]
fn a_token_is_bound_to_a_pod_and_for_our_audience_or_it_is_no_proof() {
    let web = Bound {
        account: Account { namespace: "acme-prod".into(), name: "web".into() },
        pod: PodName { namespace: "acme-prod".into(), name: "web-0".into() },
        uid: "u-1".into(),
    };
    assert_eq!(bound(authenticated()), Ok(web.clone()));
    type Edit = fn(&mut TokenReviewStatus);
    fn extra(status: &mut TokenReviewStatus) -> &mut BTreeMap<String, Vec<String>> {
        status.user.as_mut().unwrap().extra.as_mut().unwrap()
    }
    let unbound = Refusal::Unbound(web.account);
    let cases: [(&str, Edit, Refusal); 13] = [
        ("nothing", |status| *status = TokenReviewStatus::default(), Refusal::Unauthenticated(String::new())),
        ("not authenticated", |status| status.authenticated = Some(false), Refusal::Unauthenticated(String::new())),
        (
            "not authenticated, at length",
            |status| (status.authenticated, status.error) = (None, Some("x".repeat(10_000))),
            Refusal::Unauthenticated("x".repeat(200)),
        ),
        ("no audience", |status| status.audiences = None, Refusal::Audience),
        ("the API server's audience", |status| status.audiences = Some(vec!["https://kubernetes.default.svc".into()]), Refusal::Audience),
        ("no user", |status| status.user = None, Refusal::NoAccount(String::new())),
        ("a person", |status| status.user.as_mut().unwrap().username = Some("acme:admin".into()), Refusal::NoAccount("acme:admin".into())),
        (
            "a node",
            |status| status.user.as_mut().unwrap().username = Some("system:node:n".into()),
            Refusal::NoAccount("system:node:n".into()),
        ),
        ("nothing more of the user", |status| status.user.as_mut().unwrap().extra = None, unbound.clone()),
        ("no pod", |status| drop(extra(status).remove(POD_NAME)), unbound.clone()),
        ("no UID", |status| drop(extra(status).remove(POD_UID)), unbound.clone()),
        ("an empty UID", |status| extra(status).get_mut(POD_UID).unwrap()[0].clear(), unbound.clone()),
        ("two pods", |status| extra(status).get_mut(POD_NAME).unwrap().push("api-0".into()), unbound),
    ];
    for (what, edit, wanted) in cases {
        let mut status = authenticated();
        edit(&mut status);
        assert_eq!(bound(status), Err(wanted), "{what}");
    }
}

#[test]
fn the_pod_is_the_tokens_and_still_there() {
    type Edit = fn(&mut Pod);
    let name = || bound_to_web().pod;
    let cases: [(&str, Edit, Result<(), Refusal>); 10] = [
        ("running", |_| {}, Ok(())),
        ("pending: its sidecar starts before it runs", |pod| pod.status.as_mut().unwrap().phase = Some("Pending".into()), Ok(())),
        ("without a status", |pod| pod.status = None, Ok(())),
        ("in its grace", |pod| pod.metadata.deletion_timestamp = Some(Time(at(NOW + 1))), Ok(())),
        ("after its grace", |pod| pod.metadata.deletion_timestamp = Some(Time(at(NOW))), Err(Refusal::PodGone(name()))),
        ("made anew", |pod| pod.metadata.uid = Some("u-2".into()), Err(Refusal::AnotherPod(name()))),
        ("without a UID", |pod| pod.metadata.uid = None, Err(Refusal::AnotherPod(name()))),
        (
            "of another service account",
            |pod| pod.spec.as_mut().unwrap().service_account_name = Some("api".into()),
            Err(Refusal::AnotherAccount(name())),
        ),
        ("done", |pod| pod.status.as_mut().unwrap().phase = Some("Succeeded".into()), Err(Refusal::Finished(name()))),
        ("failed", |pod| pod.status.as_mut().unwrap().phase = Some("Failed".into()), Err(Refusal::Finished(name()))),
    ];
    for (what, edit, wanted) in cases {
        let mut pod = pod();
        edit(&mut pod);
        assert_eq!(check(&pod, &bound_to_web(), at(NOW)), wanted, "{what}");
    }
}

#[test]
fn the_tenant_is_the_namespaces_and_the_workload_the_pods() {
    let member =
        |tenant: &str, workload: &str| Ok(Member::Workload { tenant: Some(tenant.parse().unwrap()), workload: workload.parse().unwrap() });
    for (what, of_pod, wanted) in [
        ("by default", vec![], member("acme", "acme")),
        ("by label", vec![(WORKLOAD_LABEL, "web")], member("acme", "web")),
        ("a tenant that the pod names", vec![(TENANT_LABEL, "globex")], member("acme", "acme")),
    ] {
        let mut pod = pod();
        pod.metadata.labels = labels(&of_pod);
        assert_eq!(named(&pod, "acme", &bound_to_web()), wanted, "{what}");
    }
    for (label, tenant, workload) in [(TENANT_LABEL, "Ac.me", "web"), (WORKLOAD_LABEL, "acme", "We_b/..")] {
        let mut pod = pod();
        pod.metadata.labels = labels(&[(WORKLOAD_LABEL, workload)]);
        let refusal = named(&pod, tenant, &bound_to_web()).unwrap_err();
        assert!(matches!(&refusal, Refusal::Label { label: of, .. } if *of == label), "{refusal}");
    }
}
