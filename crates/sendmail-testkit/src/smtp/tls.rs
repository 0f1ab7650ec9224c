//! Certificates made on the spot, good and bad, and the server's side of TLS.

use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::session::Stream;

/// A certificate authority for tests, and the certificates it gives to servers on loopback.
///
/// Its functions panic if a certificate cannot be made, which no input can cause.
pub struct Certificates {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
}

impl Certificates {
    /// A new authority, which nobody trusts yet.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = made(KeyPair::generate());
        let root = made(params.self_signed(&key));
        Self { root_pem: root.pem(), issuer: Issuer::new(params, key) }
    }

    /// The authority's own certificate, for clients that are to trust it.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A certificate for `localhost` and `127.0.0.1`, signed by this authority.
    #[must_use]
    pub fn valid(&self) -> ServerTls {
        self.signed(params(&["localhost", "127.0.0.1"]))
    }

    /// A certificate for another host.
    #[must_use]
    pub fn wrong_name(&self) -> ServerTls {
        self.signed(params(&["other.example"]))
    }

    /// A certificate whose time is over.
    #[must_use]
    pub fn expired(&self) -> ServerTls {
        let mut params = params(&["localhost", "127.0.0.1"]);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.signed(params)
    }

    /// A certificate that nobody but its owner has signed.
    #[must_use]
    pub fn self_signed() -> ServerTls {
        let key = made(KeyPair::generate());
        let certificate = made(params(&["localhost", "127.0.0.1"]).self_signed(&key));
        ServerTls::new(certificate.der().clone(), &key)
    }

    /// A certificate from another authority, which nobody trusts.
    #[must_use]
    pub fn unknown_issuer() -> ServerTls {
        Self::new().valid()
    }

    fn signed(&self, params: CertificateParams) -> ServerTls {
        let key = made(KeyPair::generate());
        let certificate = made(params.signed_by(&key, &self.issuer));
        ServerTls::new(certificate.der().clone(), &key)
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

/// A server's certificate and key.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl ServerTls {
    fn new(certificate: rustls::pki_types::CertificateDer<'static>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = made(builder.with_safe_default_protocol_versions());
        let config = made(builder.with_no_client_auth().with_single_cert(vec![certificate], key));
        Self(TlsAcceptor::from(Arc::new(config)))
    }

    pub(super) async fn accept(&self, stream: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.0.accept(stream).await?))
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}

fn params(names: &[&str]) -> CertificateParams {
    made(CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()))
}

fn made<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("no certificate could be made for a test: {error}"))
}
