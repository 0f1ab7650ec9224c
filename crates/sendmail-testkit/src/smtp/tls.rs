//! Certificates made on the spot, good and bad, and the server's side of TLS.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, NameConstraints, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
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
        let params = as_authority(CertificateParams::default());
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
        ServerTls::new(vec![certificate.der().clone()], &key)
    }

    /// A certificate from another authority, which nobody trusts.
    #[must_use]
    pub fn unknown_issuer() -> ServerTls {
        Self::new().valid()
    }

    /// A valid certificate of an authority below this one.
    #[must_use]
    pub fn valid_below(&self) -> ServerTls {
        self.below(authority())
    }

    /// Certificates that no client may accept, and what is wrong with each.
    #[must_use]
    pub fn bad(&self) -> Vec<(&'static str, ServerTls)> {
        let mut not_yet = here();
        not_yet.not_before = date_time_ymd(2999, 1, 1);
        not_yet.not_after = date_time_ymd(3000, 1, 1);
        let mut for_clients = here();
        for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut no_authority = authority();
        no_authority.is_ca = IsCa::ExplicitNoCa;
        let mut expired = authority();
        expired.not_before = date_time_ymd(2001, 1, 1);
        expired.not_after = date_time_ymd(2002, 1, 1);
        let mut elsewhere = authority();
        elsewhere.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".to_owned())],
            excluded_subtrees: vec![GeneralSubtree::IpAddress(CidrSubnet::V4(
                [127, 0, 0, 0],
                [255, 0, 0, 0],
            ))],
        });
        vec![
            ("wrong name", self.wrong_name()),
            ("wildcards", self.signed(params(&["*", "*.localhost", "*.0.0.1", "127.0.0.*"]))),
            ("no name at all", self.signed(params(&[]))),
            ("expired", self.expired()),
            ("not yet valid", self.signed(not_yet)),
            ("for clients only", self.signed(for_clients)),
            ("self-signed", Self::self_signed()),
            ("unknown issuer", Self::unknown_issuer()),
            ("an authority itself", self.signed(as_authority(here()))),
            ("issuer is no authority", self.below(no_authority)),
            ("issuer is expired", self.below(expired)),
            ("issuer may not name this host", self.below(elsewhere)),
            ("a chain of a hundred", self.long_chain(100)),
            ("a hundred issuers of one name", self.look_alikes(100)),
            ("a megabyte of certificates", self.look_alikes(3000)),
            ("a certificate of more than a thousand names", self.huge()),
        ]
    }

    /// Signed by an authority that this one has signed.
    fn below(&self, authority: CertificateParams) -> ServerTls {
        let key = made(KeyPair::generate());
        let certificate = made(authority.signed_by(&key, &self.issuer)).der().clone();
        signed_below(&Issuer::new(authority, key), vec![certificate])
    }

    /// Signed by an authority that was signed by another, and so on, up to this one.
    fn long_chain(&self, length: usize) -> ServerTls {
        let mut chain = Vec::new();
        let mut issuer: Option<Issuer<'static, KeyPair>> = None;
        for _ in 0..length {
            let (params, key) = (authority(), made(KeyPair::generate()));
            let certificate = made(params.signed_by(&key, issuer.as_ref().unwrap_or(&self.issuer)));
            chain.insert(0, certificate.der().clone());
            issuer = Some(Issuer::new(params, key));
        }
        signed_below(issuer.as_ref().unwrap_or(&self.issuer), chain)
    }

    /// Very many certificates that all might be that of the issuer, and none is.
    fn look_alikes(&self, count: usize) -> ServerTls {
        let key = made(KeyPair::generate());
        let one = made(authority().signed_by(&key, &self.issuer)).der().clone();
        let stranger = Issuer::new(authority(), made(KeyPair::generate()));
        signed_below(&stranger, vec![one; count])
    }

    /// One certificate with very many names.
    fn huge(&self) -> ServerTls {
        let names: Vec<String> =
            (0..1200).map(|n| format!("a-name-that-is-quite-long-{n}.example.net")).collect();
        self.signed(params(&names.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    fn signed(&self, params: CertificateParams) -> ServerTls {
        let key = made(KeyPair::generate());
        let certificate = made(params.signed_by(&key, &self.issuer));
        ServerTls::new(vec![certificate.der().clone()], &key)
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
    /// A chain of certificates, the server's own first, and its key, in PEM.
    ///
    /// # Panics
    ///
    /// They cannot be read, or do not belong together.
    #[must_use]
    pub fn from_pem(chain: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(made).collect();
        Self::with_key(chain, made(PrivateKeyDer::from_pem_slice(key.as_bytes())))
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Self::with_key(chain, key)
    }

    fn with_key(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = made(builder.with_safe_default_protocol_versions());
        let config = made(builder.with_no_client_auth().with_single_cert(chain, key));
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

/// A certificate for this host, signed by `issuer`, whose own chain follows.
fn signed_below(
    issuer: &Issuer<'static, KeyPair>,
    mut chain: Vec<CertificateDer<'static>>,
) -> ServerTls {
    let key = made(KeyPair::generate());
    let certificate = made(here().signed_by(&key, issuer));
    chain.insert(0, certificate.der().clone());
    ServerTls::new(chain, &key)
}

fn here() -> CertificateParams {
    params(&["localhost", "127.0.0.1"])
}

fn authority() -> CertificateParams {
    as_authority(params(&[]))
}

fn as_authority(mut params: CertificateParams) -> CertificateParams {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn params(names: &[&str]) -> CertificateParams {
    made(CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()))
}

fn made<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("no certificate could be made for a test: {error}"))
}
