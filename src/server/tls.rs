//! TLS of the listener: certificate and key from files, read again when the operator says so.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::error::{Error, Problems, Result};

/// A handle: clones share what was read last.
#[derive(Clone)]
pub struct Tls {
    files: config::Tls,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Blocking. `Invalid` names every file that cannot be used.
    pub fn load(files: &config::Tls) -> Result<Self> {
        let current = Arc::new(RwLock::new(Arc::new(read(files)?)));
        Ok(Self { files: files.clone(), current })
    }

    /// For connections from now on. Blocking; after an error what was read before stays.
    pub fn reload(&self) -> Result<()> {
        let new = Arc::new(read(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

fn read(files: &config::Tls) -> Result<ServerConfig> {
    let mut bad = Problems::new();
    let chain = bad.absorb(certificates("tls.certificate", &files.certificate))?;
    let key = bad.absorb(private_key(&files.key))?;
    let clients = bad.absorb(files.client_ca.as_deref().map(client_ca).transpose())?.flatten();
    bad.done()?;
    let (Some(chain), Some(key)) = (chain, key) else {
        return Err(Error::internal("a bad file without a problem"));
    };
    // Named, because a second one in the tree would make rustls panic when it has to choose.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("no version of TLS").caused_by(e))?;
    let builder = match clients {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| Error::invalid("tls.client_ca", e.to_string()))?)
        }
        None => builder.with_no_client_auth(),
    };
    let wrong = |e: rustls::Error| {
        let setting = if matches!(e, rustls::Error::InconsistentKeys(_)) { "tls.key" } else { "tls.certificate" };
        Error::invalid(setting, format!("certificate and key do not work together: {e}"))
    };
    let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |e| unusable(setting, file, &e);
    let all: Vec<_> = CertificateDer::pem_file_iter(file).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if all.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(all) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    let key = PrivateKeyDer::from_pem_file(file).map_err(|e| unusable("tls.key", file, &e))?;
    let mode = std::fs::metadata(file).map_err(|e| unusable("tls.key", file, &pem::Error::Io(e)))?.permissions().mode();
    if mode & 0o006 != 0 {
        tracing::warn!(file = %file.display(), "tls.key: every user of this host may use this file; chmod o-rw it");
    }
    Ok(key)
}

fn client_ca(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.client_ca", file)? {
        let added = roots.add(certificate);
        added.map_err(|e| Error::invalid("tls.client_ca", format!("{}: {e}", file.display())))?;
    }
    Ok(roots)
}

fn unusable(setting: &str, file: &Path, why: &pem::Error) -> Error {
    let why: &dyn std::fmt::Display = match why {
        pem::Error::Io(e) if e.kind() == io::ErrorKind::NotFound => &"there is no such file",
        pem::Error::Io(e) => e,
        pem::Error::NoItemsFound => &"it holds none in PEM form",
        other => other,
    };
    Error::invalid(setting, format!("{}: {why}", file.display()))
}
