//! TLS: the client's side of rustls, and what its errors mean.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use sendmail_core::{Error, ErrorKind, Result};
use tokio_rustls::TlsConnector;

/// A connector that trusts the operating system's root certificates and `extra`.
pub(crate) fn connector(extra: &[CertificateDer<'static>]) -> Result<TlsConnector> {
    let unusable = |error: rustls::Error| {
        Error::new(
            ErrorKind::Tls,
            "set up TLS",
            format!("{error}; install the operating system's root certificates or name your own"),
        )
        .with_source(error)
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra.to_vec(), provider.clone());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.map_err(unusable)?))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the relay's certificate has to be valid for.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|error| {
        Error::new(ErrorKind::Tls, "set up TLS", "the relay's host is no name for a certificate")
            .with_source(error)
    })
}

/// What a failed handshake was about: a certificate or an alert is permanent until somebody changes
/// something, a connection that broke is not.
pub(crate) fn handshake_error(error: io::Error) -> Error {
    let about_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let wrapped = Error::new(ErrorKind::Tls, "set up TLS", error.to_string()).with_source(error);
    if about_tls { wrapped.permanent() } else { wrapped.temporary() }
}
