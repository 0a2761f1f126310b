//! Identity providers of our own: a socket that speaks TLS and answers what it is told to.

mod feeds;
mod fetches;
mod keeping_on;
mod refusals;

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{JwksUri, Wanted};

/// A certificate authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// TLS as a server that has a certificate for `name`.
    fn server(&self, name: &str, expires_in: i32) -> TlsAcceptor {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(expires_in, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        Arc::new(config).into()
    }
}

/// One that is asked.
struct Site {
    port: u16,
    answer: Arc<Mutex<Answer>>,
    /// The head of each request.
    requests: Arc<Mutex<Vec<String>>>,
    authority: Authority,
    task: AbortHandle,
}

#[derive(Clone)]
struct Answer {
    bytes: Vec<u8>,
    /// Then the connection stays open, and silent.
    hold: bool,
}

impl Site {
    async fn new(answer: impl Into<Vec<u8>>) -> Self {
        Self::with_certificate("localhost", 3000, answer).await
    }

    async fn with_certificate(name: &str, expires_in: i32, answer: impl Into<Vec<u8>>) -> Self {
        let authority = Authority::new();
        let tls = authority.server(name, expires_in);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(Answer { bytes: answer.into(), hold: false }));
        let requests = Arc::default();
        let task = tokio::spawn(serve(listener, tls, answer.clone(), Arc::clone(&requests))).abort_handle();
        Self { port, answer, requests, authority, task }
    }

    fn answer(&self, bytes: impl Into<Vec<u8>>, hold: bool) {
        *self.answer.lock().unwrap() = Answer { bytes: bytes.into(), hold };
    }

    /// A place at this site, trusted and allowed.
    fn uri(&self, path: &str) -> JwksUri {
        let uri: JwksUri = format!("https://localhost:{}{path}", self.port).parse().unwrap();
        uri.trust_only(self.authority.pem.as_bytes()).unwrap().dangerous_allow_private()
    }

    fn wanted(&self, path: &str, algorithm: &str) -> Wanted {
        Wanted { from: self.uri(path), algorithms: vec![algorithm.parse().unwrap()] }
    }

    /// How often a path was asked for.
    fn asked(&self, path: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|head| head.starts_with(&format!("GET {path} HTTP/1.1\r\n"))).count()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, answer: Arc<Mutex<Answer>>, requests: Arc<Mutex<Vec<String>>>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (tls, answer, requests) = (tls.clone(), answer.clone(), requests.clone());
        tokio::spawn(async move {
            // A client that does not like the certificate.
            let Ok(mut stream) = tls.accept(socket).await else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            requests.lock().unwrap().push(String::from_utf8(head).unwrap());
            let Answer { bytes, hold } = answer.lock().unwrap().clone();
            // A client that has heard enough.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            if hold {
                std::future::pending::<()>().await;
            }
            let _ = stream.shutdown().await;
        });
    }
}

fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn ok(body: &Value) -> Vec<u8> {
    response("200 OK", "", &body.to_string())
}

/// A public key for ES256.
fn jwk(kid: &str) -> Value {
    let key = KeyPair::generate().unwrap();
    let (x, y) = key.der_bytes()[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

fn set(keys: &[&Value]) -> Value {
    json!({ "keys": keys })
}
