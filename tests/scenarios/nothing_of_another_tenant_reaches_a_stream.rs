//! A sidecar's stream carries its own tenants and nothing of any other: no name, no count, no size, no sign that something changed.

use ringfence_tests::{
    Serve, Site, Upstream,
    ads::{Stream, subscribe},
};
use ringfence_xds::{generated::discovery::DeltaDiscoveryResponse, resource::Kind};
use tonic::Code;

/// Acme and globex with a dedicated workload each.
fn site(upstream: &Upstream) -> Site {
    let site = Site::acme(upstream.address);
    site.tenant("globex", "");
    site.workload("globex-api", "tenant: globex", upstream.address);
    site
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

/// Subscribed to all that `tenant`'s dedicated workload needs.
fn settled(serve: &Serve, tenant: &str) -> Stream {
    let workload = format!("{tenant}-api");
    let mut stream = Stream::unix(&serve.socket(&workload), &workload);
    for (kind, name) in [(Kind::Workload, &*workload), (Kind::Platform, "platform"), (Kind::Issuer, "sso"), (Kind::Tenant, tenant)] {
        let response = stream.ask(kind, &[name]);
        let answered = names(&response).into_iter().chain(response.removed_resources.iter().map(String::as_str));
        assert_eq!(answered.collect::<Vec<_>>(), [name], "{response:?}");
    }
    stream
}

#[test]
fn an_edit_of_another_tenant_brings_not_one_octet() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let serve = Serve::start(&site);
    let (mut acme, mut globex) = (settled(&serve, "acme"), settled(&serve, "globex"));
    // The answer to a name that does not exist is the last thing that this stream is sent: what comes later is a push.
    acme.ask(Kind::Tenant, &["nobody"]);
    let before = acme.octets();

    site.tenant("globex", "displayName: Globex, limits: [{ name: secret-limit, rate: 7/s }]");
    assert_eq!(names(&globex.accept()), ["globex"]);
    site.tenants("other", 100);
    site.workload("other-api", "tenants: [globex, other7]", upstream.address);
    site.tenant("globex", "limits: [{ name: another-limit, rate: 8/s }]");
    assert_eq!(names(&globex.accept()), ["globex"], "so the hundred before it were published");
    site.remove("other-api.yaml");
    site.remove("others.yaml");
    site.tenant("globex", "");
    assert_eq!(names(&globex.accept()), ["globex"]);

    assert_eq!(acme.octets().len(), before.len(), "octets came that no edit of acme's sent");
    // The stream is alive, and its count of responses has not moved for anybody else.
    let nonce = |response: &DeltaDiscoveryResponse| response.nonce.parse::<u64>().unwrap();
    site.tenant("acme", "limits: [{ name: own, rate: 9/s }]");
    let own = acme.accept();
    assert_eq!((names(&own), nonce(&own)), (vec!["acme"], 6), "five answers, and then this");
    let text = String::from_utf8_lossy(&acme.octets()).into_owned();
    assert!(text.contains("own"));
    for foreign in ["globex", "Globex", "other", "secret-limit", "another-limit"] {
        assert!(!text.contains(foreign), "{foreign} reached acme's stream");
    }
}

#[test]
fn another_tenants_name_is_answered_like_one_that_does_not_exist() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    site.write(
        "other.yaml",
        &ringfence_tests::site::object(
            "Issuer",
            "other",
            "{ issuer: https://o.test, audiences: [a], algorithms: [ES256], tenantClaim: t, jwks: { file: jwks.json } }",
        ),
    );
    let serve = Serve::start(&site);
    let mut acme = settled(&serve, "acme");
    // Names of the same length, so that sizes can be compared to the octet.
    for (kind, foreign, nobody) in [
        (Kind::Tenant, "globex", "nobody"),
        (Kind::Workload, "globex-api", "nobody-api"),
        (Kind::Issuer, "other", "ghost"),
        (Kind::Binding, "sso/globex", "sso/nobody"),
    ] {
        let mut answer = |name| {
            let before = acme.octets().len();
            let mut response = acme.ask(kind, &[name]);
            assert_eq!(response.removed_resources, [name], "{response:?}");
            response.removed_resources.clear();
            response.nonce.clear();
            (response, acme.octets().len() - before)
        };
        // Octets of HTTP/2's own upkeep may come with any answer: sizes are compared between two in a row of each kind.
        let (first, second) = (answer(foreign), answer(nobody));
        assert_eq!(first.0, second.0, "{kind}");
    }
}

#[test]
fn a_socket_belongs_to_its_workload() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let serve = Serve::start(&site);
    for node in ["globex-api", "globex-api/1", "acme-api2", "nobody", "acme-api-", "ACME-API"] {
        let mut stream = Stream::unix(&serve.socket("acme-api"), node);
        stream.send(subscribe(Kind::Workload, &["globex-api"]));
        let status = stream.next().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "this connection belongs to another workload"), "{node}");
        assert!(!String::from_utf8_lossy(&stream.octets()).contains("globex"));
    }
    let mut stream = Stream::unix(&serve.socket("acme-api"), "");
    stream.send(subscribe(Kind::Workload, &["acme-api"]));
    assert_eq!(stream.next().unwrap_err().code(), Code::InvalidArgument);
    // Several instances of one workload are all its own.
    let mut instance = Stream::unix(&serve.socket("acme-api"), "acme-api/2");
    assert_eq!(names(&instance.ask(Kind::Workload, &["acme-api"])), ["acme-api"]);
}

#[test]
fn a_wildcard_shows_an_outsider_its_own_alone() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    site.tenants("other", 20);
    let serve = Serve::start(&site);
    let mut outsider = Stream::plaintext(serve.plaintext, "acme-api");
    for (kind, own) in [(Kind::Workload, "acme-api"), (Kind::Tenant, "acme"), (Kind::Issuer, "sso")] {
        assert_eq!(names(&outsider.ask(kind, &["*"])), [own]);
    }
    let text = String::from_utf8_lossy(&outsider.octets()).into_owned();
    assert!(!text.contains("globex") && !text.contains("other"), "{text}");

    // Newcomers concern it as little.
    site.tenant("initech", "");
    site.tenant("acme", "limits: [{ name: own, rate: 9/s }]");
    assert_eq!(names(&outsider.accept()), ["acme"]);
}
