//! The demonstration workload: answers each request with what it received, as JSON, so that one sees what a sidecar lets through.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, body::Incoming, header::CONTENT_TYPE, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// Bodies are echoed up to this many bytes.
const MAX_BODY: usize = 64 * 1024;

/// Serves HTTP/1.1 and HTTP/2 without TLS on an address that was bound before.
pub async fn serve(listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors, most likely: connections have to end first.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
            // A connection's failure concerns its client alone.
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}

pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut seen = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "version": format!("{:?}", head.version),
        "headers": fields(&head.headers),
    });
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => {
            if let Some(trailers) = body.trailers() {
                seen["trailers"] = fields(trailers);
            }
            let body = body.to_bytes();
            seen["bodyBytes"] = body.len().into();
            seen["body"] = String::from_utf8_lossy(&body).into();
        }
        Err(error) => seen["bodyError"] = error.to_string().into(),
    }
    let mut reply = Response::new(Full::from(format!("{seen}\n")));
    reply.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    Ok(reply)
}

/// Field names in lower case; several lines of one field are joined as RFC 9110 §5.3 has it.
fn fields(headers: &hyper::HeaderMap) -> Value {
    let mut fields = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match fields.get_mut(name.as_str()) {
            Some(Value::String(values)) => {
                values.push_str(", ");
                values.push_str(&value);
            }
            _ => {
                fields.insert(name.to_string(), value.into());
            }
        }
    }
    fields.into()
}
