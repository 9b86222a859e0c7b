//! TLS to the outside: rustls over aws-lc-rs, the public roots, and one's own authority if named.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use portcullis_model::Refusal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::destination::CONNECT_TIME;

/// Most certificates in a file of one's own authorities.
const EXTRA_MAX: usize = 64;

/// Connections by HTTP or HTTPS, HTTP/1.1 or HTTP/2. `extra` as for [`client`].
pub(crate) fn connector(extra: Option<&Path>) -> Result<HttpsConnector<HttpConnector>, Refusal> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIME));
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(client(extra)?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector))
}

/// A client configuration. `extra` is a PEM file of further authorities.
pub(crate) fn client(extra: Option<&Path>) -> Result<rustls::ClientConfig, Refusal> {
    let mut roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(file) = extra {
        let unreadable = |why: String| {
            Refusal::unavailable(
                "ca-file-unreadable",
                format!("{} holds no authorities", file.display()),
            )
            .expected("a PEM file with 1 to 64 certificates")
            .received(&why)
        };
        let mut count = 0;
        for certificate in
            CertificateDer::pem_file_iter(file).map_err(|error| unreadable(error.to_string()))?
        {
            let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| unreadable(error.to_string()))?;
            count += 1;
            if count > EXTRA_MAX {
                return Err(unreadable("more than 64".to_owned()));
            }
        }
        if count == 0 {
            return Err(unreadable("no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Refusal::internal(format!("TLS can't be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed session shows no certificate: one that has expired since would go on being trusted.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
