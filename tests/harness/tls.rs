//! A certificate authority of the test's own, TLS servers that it vouches for, and clients that trust it and nobody else.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{Arc, LazyLock},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    client::{EchGreaseConfig, EchMode},
    crypto::{
        aws_lc_rs::{default_provider, hpke::DH_KEM_X25519_HKDF_SHA256_AES_128},
        hpke::Hpke,
    },
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};

/// One for all tests: it is the keys that take time.
static AUTHORITY: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "The tests' own authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
});

/// The authority's certificate, for programs that read a file of them.
pub fn authority() -> String {
    AUTHORITY.pem()
}

/// A root of its own, and an intermediate that it has certified: certificate, certificate and key, all as PEM.
pub fn intermediate(name: &str) -> [String; 3] {
    let params = |common: String| {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, common);
        params
    };
    let root = CertifiedIssuer::self_signed(params(format!("{name}, root")), KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params(format!("{name}, intermediate")).signed_by(&key, &root).unwrap();
    [root.pem(), certificate.pem(), key.serialize_pem()]
}

/// A certificate for `name` and its key, both as PEM, for servers that read files.
pub fn pair(name: &str) -> (String, String) {
    pair_of(name, &KeyPair::generate().unwrap())
}

/// The same for a key of any kind.
pub fn pair_of(name: &str, key: &KeyPair) -> (String, String) {
    signed(CertificateParams::new([name.to_owned()]).unwrap(), key)
}

/// The same for several names; one may be an address.
pub fn pair_of_all(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    signed(CertificateParams::new(names).unwrap(), &KeyPair::generate().unwrap())
}

/// The same for a client that is known by its subject.
pub fn client_pair(name: &str, organization: Option<&str>) -> (String, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    signed(params, &KeyPair::generate().unwrap())
}

fn signed(mut params: CertificateParams, key: &KeyPair) -> (String, String) {
    params.use_authority_key_identifier_extension = true;
    (params.signed_by(key, &AUTHORITY).unwrap().pem(), key.serialize_pem())
}

/// What a server needs to be all of `names`, in HTTP/1.1 and HTTP/2.
pub fn server(names: &[&str]) -> Arc<ServerConfig> {
    server_of(names, &[b"h2", b"http/1.1"])
}

/// The same in these protocols (RFC 7301).
pub fn server_of(names: &[&str], protocols: &[&[u8]]) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &AUTHORITY).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.into()
}

/// What of its name a ClientHello says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says<'a> {
    /// In the clear, as is usual.
    Name(&'a str),
    Nothing,
    /// In the clear, beside an Encrypted Client Hello (RFC 9849) in which another may be.
    NameAndEch(&'a str),
}

fn client(says: Says<'_>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(AUTHORITY.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(default_provider().into());
    let builder = match says {
        Says::NameAndEch(_) => {
            let suite = DH_KEM_X25519_HKDF_SHA256_AES_128;
            let (key, _) = suite.generate_key_pair().unwrap();
            builder.with_ech(EchMode::Grease(EchGreaseConfig::new(suite, key))).unwrap()
        }
        _ => builder.with_safe_default_protocol_versions().unwrap(),
    };
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.enable_sni = says != Says::Nothing;
    let name = match says {
        Says::Name(name) | Says::NameAndEch(name) => name,
        Says::Nothing => "nobody.test",
    };
    ClientConnection::new(config.into(), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

/// A ClientHello as rustls sends it.
pub fn client_hello(says: Says<'_>) -> Vec<u8> {
    let mut hello = Vec::new();
    client(says).write_tls(&mut hello).unwrap();
    hello
}

/// The reply to `GET path` over TLS on this connection. Refused with an alert: an error that names it.
pub fn get(stream: TcpStream, name: &str, path: &str) -> io::Result<String> {
    get_as(stream, name, path, "")
}

/// The same with these fields, each `Name: value\r\n`.
pub fn get_as(stream: TcpStream, name: &str, path: &str, fields: &str) -> io::Result<String> {
    let mut stream = StreamOwned::new(client(Says::Name(name)), stream);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {name}\r\n{fields}Connection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        // Whoever closes without close_notify has told all that a Content-Length counts.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof || reply.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&reply).into_owned()),
    }
}
