//! TLS at the listener.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::peers::{Origin, Peer, Sidecar, run};
use crate::inbound::{
    Transport,
    tls::{H2, HTTP1, identity},
};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn client_config(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(data("certificate.pem")).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

async fn connect(sidecar: &Sidecar, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    TlsConnector::from(config).connect(ServerName::try_from("sidecar.test").unwrap(), stream).await.unwrap()
}

#[test]
fn the_protocol_is_chosen_by_alpn_and_no_session_is_resumed() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let tls = identity(&data("certificate.pem"), &data("key.pem")).unwrap().config;
        let sidecar = Sidecar::with(address, |inbound| inbound.transport = Transport::Tls(TlsAcceptor::from(tls)));
        let stream = connect(&sidecar, client_config(&[H2, HTTP1])).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(H2));
        let config = client_config(&[HTTP1]);
        for _ in 0..2 {
            let stream = connect(&sidecar, config.clone()).await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(HTTP1));
            let mut client = Peer::new(stream);
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            let mut workload = origin.accept().await;
            assert!(workload.head().await.contains("\r\nx-forwarded-proto: https\r\n"));
            workload.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
            assert!(client.rest().await.ends_with("ok"));
        }
        // The client has had every chance to keep a ticket.
        let stream = connect(&sidecar, config).await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    });
}

#[test]
fn faults_name_the_file() {
    let (certificate, key) = (data("certificate.pem"), data("key.pem"));
    let missing = data("missing.pem");
    let empty = tempfile::NamedTempFile::new().unwrap();
    for (certificate, key, file, expected) in [
        (&*missing, &*key, &*missing, "a certificate chain"),
        (&certificate, &missing, &missing, "a private key"),
        (empty.path(), &key, empty.path(), "at least one certificate"),
        (&certificate, &certificate, &certificate, "a private key"),
    ] {
        let message = identity(certificate, key).unwrap_err().to_string();
        assert!(message.contains(&file.display().to_string()) && message.contains(expected), "{message}");
    }
}
