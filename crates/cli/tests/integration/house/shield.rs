//! TLS in front of a host outside, with a certificate of the test's own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An authority that vouches for hosts outside.
pub(crate) struct Voucher {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, as `extra_authorities` takes it.
    pub(crate) pem: String,
}

/// What stands behind the TLS.
#[derive(Clone, Copy)]
pub(crate) enum Behind {
    /// A host that speaks HTTP/1.1 at this port, whatever it is sent.
    Plain(u16),
    /// Nothing: it answers in HTTP/2 alone, with the version and path that it was asked; to gRPC
    /// with what it hears as it hears it, and with trailers.
    Http2,
}

impl Voucher {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Puts TLS before a host, under a certificate for `name` that is good until `ends`. Gives the
    /// port.
    pub(crate) fn shield(&self, name: &str, ends: SystemTime, behind: Behind) -> u16 {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch;
        params.not_after = epoch + whole_seconds(ends);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![match behind {
            Behind::Plain(_) => b"http/1.1".to_vec(),
            Behind::Http2 => b"h2".to_vec(),
        }];
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(accept(listener, acceptor, behind));
        });
        port
    }
}

/// Certificates tell whole seconds.
pub(crate) fn whole_seconds(time: SystemTime) -> Duration {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Duration::from_secs(since.as_secs())
}

type Body = BoxBody<Bytes, hyper::Error>;

async fn accept(listener: std::net::TcpListener, acceptor: TlsAcceptor, behind: Behind) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            match behind {
                Behind::Plain(port) => {
                    let mut host = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut stream, &mut host).await;
                }
                Behind::Http2 => {
                    let service = hyper::service::service_fn(told);
                    let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }
            }
        });
    }
}

async fn told(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let of = |name: &str| {
        let value = request.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    if of("content-type").starts_with("application/grpc") {
        let mut trailers = hyper::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("grpc-message", of("te").parse().unwrap());
        trailers.insert("set-cookie", "a=b".parse().unwrap());
        let echo = request
            .into_body()
            .with_trailers(async move { Some(Ok(trailers)) });
        let answer = Response::builder().header("content-type", "application/grpc");
        return Ok(answer.body(echo.boxed()).unwrap());
    }
    let text = format!("{:?} {}\n", request.version(), request.uri());
    let text = Full::new(Bytes::from(text)).map_err(|never| match never {});
    Ok(Response::new(text.boxed()))
}
