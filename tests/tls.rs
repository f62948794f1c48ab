//! TLS of the listener: files, reload, client certificates, and what is no TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pengx::config;
use pengx::dialects::pengx::Settings;
use pengx::server::{Limits, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::app::App;
use crate::harness::http::Served;
use crate::harness::server::{Place, Program};
use crate::harness::wait::{PATIENCE, wait_until};

/// Signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for this host, as text.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Trusts this authority alone.
    fn client(&self, own: Option<&(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// A directory with the files of a server.
struct Files {
    dir: tempfile::TempDir,
    client_ca: bool,
}

impl Files {
    fn new(pair: &(String, String)) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap(), client_ca: false };
        files.write(pair);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, (certificate, key): &(String, String)) {
        std::fs::write(self.path("cert.pem"), certificate).unwrap();
        std::fs::write(self.path("key.pem"), key).unwrap();
        chmod(&self.path("key.pem"), 0o600);
    }

    fn require(&mut self, clients: &Authority) {
        std::fs::write(self.path("clients.pem"), clients.0.pem()).unwrap();
        self.client_ca = true;
    }

    fn config(&self) -> config::Tls {
        let client_ca = self.client_ca.then(|| self.path("clients.pem"));
        config::Tls { certificate: self.path("cert.pem"), key: self.path("key.pem"), client_ca }
    }

    /// For the top of a configuration file.
    fn settings(&self) -> String {
        let config = self.config();
        let ca = config.client_ca.map(|ca| format!(", client_ca = '{}'", ca.display())).unwrap_or_default();
        let (certificate, key) = (config.certificate.display(), config.key.display());
        format!("log_level = 'debug'\ntls = {{ certificate = '{certificate}', key = '{key}'{ca} }}")
    }

    fn served(&self, app: &App, limits: Limits) -> Served {
        Served::with(&app.core, Settings::default(), limits, Some(Tls::load(&self.config()).unwrap()))
    }
}

fn chmod(file: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A connection with its handshake done.
struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    /// The error of whichever side did not like the other.
    fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = Self(StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream));
        client.0.conn.complete_io(&mut client.0.sock)?;
        Ok(client)
    }

    /// Status and body; the connection stays open.
    fn get(&mut self, uri: &str) -> std::io::Result<(u16, String)> {
        self.send(&format!("GET {uri} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn send(&mut self, request: &str) -> std::io::Result<(u16, String)> {
        self.0.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        loop {
            let mut part = [0; 4096];
            let n = self.0.read(&mut part)?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&bytes);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()));
            }
        }
    }
}

fn served(address: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    Client::open(address, config)
        .and_then(|mut client| client.get("/storlinks/"))
        .is_ok_and(|(status, _)| status == 200)
}

#[test]
fn tls_is_served_from_files_and_unmodified_clients_like_it() {
    let authority = Authority::new("one");
    let files = Files::new(&authority.issue());
    let place = Place::new("fake:///", &files.settings());
    let program = place.serve();
    assert_eq!(program.scheme, "https");
    let mut client = Client::open(program.address, &authority.client(None)).unwrap();
    assert_eq!(client.0.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    for _ in 0..3 {
        assert_eq!(client.get("/storlinks/").unwrap().0, 200);
    }
    // Nobody who trusts somebody else.
    assert!(Client::open(program.address, &Authority::new("two").client(None)).is_err());
    // What hyper answers by itself is a document here, too.
    let (status, body) = client.send("GARBAGE\r\n\r\n").unwrap();
    assert_eq!(status, 400);
    assert!(body.starts_with("<root>\n  <result>failure</result>\n  <message>the request cannot be read"), "{body}");

    std::fs::write(files.path("ca.pem"), authority.0.pem()).unwrap();
    let curl = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--cacert"])
        .arg(files.path("ca.pem"))
        .args(["--write-out", "%{http_code}", &format!("https://{}/storlinks/", program.address)])
        .output()
        .unwrap();
    assert!(curl.status.success(), "{}", String::from_utf8_lossy(&curl.stderr));
    let text = String::from_utf8(curl.stdout).unwrap();
    assert!(text.contains("<storlinks>") && text.ends_with("200"), "{text}");
    assert!(!program.log().contains("every user of this host"));
    program.terminate();
    assert!(program.wait().success());
}

/// What follows the upgrade goes through TLS as well.
#[test]
fn a_console_is_served_over_tls_and_its_url_says_so() {
    let authority = Authority::new("one");
    let files = Files::new(&authority.issue());
    let app = App::new();
    let vm = crate::console::add_vm(&app, app.storlink(), "web1");
    app.run(pengx::operations::vm::StartVm { vm }).unwrap();
    let screen = crate::harness::screen::Screen::new();
    assert!(app.site.fake.put_screen(vm, screen.port));
    let http = files.served(&app, Limits::default());
    let mut client = Client::open(http.address, &authority.client(None)).unwrap();
    let port = format!("<vnc_port>{}</vnc_port>", screen.port);
    wait_until("the screen is seen", || Ok(client.get(&format!("/vms/{vm}/")).unwrap().1.contains(&port)));
    let post = format!("POST /vms/{vm}/console/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let (status, body) = client.send(&post).unwrap();
    let path = format!("/vms/{vm}/console/?ticket=");
    let ticket = body.split(&format!("<url>wss://localhost{path}")).nth(1).and_then(|rest| rest.split('<').next());
    assert_eq!((status, ticket.map(str::len)), (201, Some(43)), "{body}");
    let mut upgrade = format!("GET {path}{} HTTP/1.1\r\nHost: localhost\r\n", ticket.unwrap());
    crate::harness::viewer::UPGRADE.iter().for_each(|(name, value)| upgrade.push_str(&format!("{name}: {value}\r\n")));
    client.0.write_all(format!("{upgrade}\r\n").as_bytes()).unwrap();
    let mut got = Vec::new();
    // A frame of twelve bytes.
    while !got.ends_with(b"\r\n\r\n\x82\x0cRFB 003.008\n") {
        let mut part = [0; 512];
        let n = client.0.read(&mut part).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&part[..n]);
    }
    assert!(got.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
}

#[test]
fn sighup_reads_the_files_again_and_broken_ones_change_nothing() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let files = Files::new(&one.issue());
    let place = Place::new("fake:///", &files.settings());
    let program = place.serve();
    let mut open = Client::open(program.address, &one.client(None)).unwrap();
    assert_eq!(open.get("/storlinks/").unwrap().0, 200);
    files.write(&two.issue());
    assert!(served(program.address, &one.client(None)), "nobody has said that they changed");
    program.signal(Signal::HUP);
    wait_until("the new certificate is used", || Ok(served(program.address, &two.client(None))));
    assert!(!served(program.address, &one.client(None)));
    assert_eq!(open.get("/storlinks/").unwrap().0, 200, "an open connection goes on");

    let kept = |program: &Program, times: usize, says: &str| {
        program.signal(Signal::HUP);
        let complaint = "the files of [tls] as they were stay in use";
        wait_until("it complains", || Ok(program.log().matches(complaint).count() == times));
        assert!(program.log().contains(says), "{}", program.log());
        assert!(served(program.address, &two.client(None)));
    };
    std::fs::write(files.path("cert.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    kept(&program, 1, "tls.certificate: ");
    std::fs::remove_file(files.path("cert.pem")).unwrap();
    kept(&program, 2, "cert.pem: there is no such file");
    // A key of another certificate.
    files.write(&(two.issue().0, one.issue().1));
    kept(&program, 3, "tls.key: certificate and key do not work together");
    files.write(&one.issue());
    program.signal(Signal::HUP);
    wait_until("it recovers", || Ok(served(program.address, &one.client(None))));
}

#[test]
fn sighup_without_tls_ends_nothing() {
    let place = Place::new("fake:///", "");
    let program = place.serve();
    program.signal(Signal::HUP);
    wait_until("it says so", || Ok(program.log().contains("there is no TLS")));
    assert_eq!(program.get("/storlinks/").status, 200);
}

#[test]
fn bad_files_end_the_start_and_every_one_is_named() {
    let authority = Authority::new("one");
    let files = Files::new(&authority.issue());
    let refused = |settings: &str| {
        let out = Place::new("fake:///", settings).try_serve(&[]);
        assert_eq!(out.status.code(), Some(2), "{out:?}");
        String::from_utf8(out.stderr).unwrap()
    };
    std::fs::write(files.path("cert.pem"), "nothing").unwrap();
    std::fs::remove_file(files.path("key.pem")).unwrap();
    let said = refused(&files.settings());
    assert!(said.contains("tls.certificate: ") && said.contains("cert.pem: it holds none in PEM form"), "{said}");
    assert!(said.contains("tls.key: ") && said.contains("key.pem: there is no such file"), "{said}");
    files.write(&(authority.issue().0, authority.issue().1));
    let said = refused(&files.settings());
    assert!(said.contains("tls.key: certificate and key do not work together"), "{said}");
    let said = refused("tls = { certificate = 'x', ca = 'y' }");
    assert!(said.contains("tls.key: is required") && said.contains("tls.ca: is no setting"), "{said}");
    let mut files = Files::new(&authority.issue());
    files.require(&authority);
    std::fs::write(files.path("clients.pem"), "").unwrap();
    assert!(refused(&files.settings()).contains("tls.client_ca: "));
}

#[test]
fn a_key_that_every_user_may_read_is_complained_of() {
    let authority = Authority::new("one");
    let files = Files::new(&authority.issue());
    chmod(&files.path("key.pem"), 0o644);
    let place = Place::new("fake:///", &files.settings());
    let program = place.serve();
    assert!(program.log().contains("every user of this host may use this file"), "{}", program.log());
    assert!(served(program.address, &authority.client(None)));
}

#[test]
fn a_client_needs_a_certificate_of_the_authority_that_is_asked_for() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let mut files = Files::new(&servers.issue());
    files.require(&clients);
    let app = App::new();
    let server = files.served(&app, Limits::default());
    assert!(served(server.address, &servers.client(Some(&clients.issue()))));
    assert!(!served(server.address, &servers.client(None)));
    assert!(!served(server.address, &servers.client(Some(&servers.issue()))));
    // The same name, another key.
    assert!(!served(server.address, &servers.client(Some(&Authority::new("clients").issue()))));
    assert!(served(server.address, &servers.client(Some(&clients.issue()))));
}

/// Everything until the server closes or cuts.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection stays open"),
        _ => bytes,
    }
}

#[test]
fn plain_http_to_tls_is_closed_and_noted() {
    let authority = Authority::new("one");
    let files = Files::new(&authority.issue());
    let place = Place::new("fake:///", &files.settings());
    let program = place.serve();
    let mut stream = TcpStream::connect(program.address).unwrap();
    stream.write_all(b"GET /vms/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let got = rest(&mut stream);
    assert!(!got.windows(5).any(|w| w == b"HTTP/"), "{got:?}");
    wait_until("it is noted", || Ok(program.log().contains("no TLS handshake")));
    assert!(served(program.address, &authority.client(None)));
}

#[test]
fn a_handshake_that_does_not_end_is_cut_and_blocks_nobody() {
    let authority = Authority::new("one");
    let files = Files::new(&authority.issue());
    let app = App::new();
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = files.served(&app, limits);
    // The beginning of a ClientHello whose record says that it is 512 bytes long.
    let half = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 40]].concat();
    let mut stuck: Vec<TcpStream> = (0..20)
        .map(|n| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(&half[..if n % 2 == 0 { half.len() } else { 0 }]).unwrap();
            stream
        })
        .collect();
    // Its own handshake may be too slow on a machine that is busy.
    wait_until("others are served", || Ok(served(server.address, &authority.client(None))));
    for stream in &mut stuck {
        rest(stream);
    }
    wait_until("others are served", || Ok(served(server.address, &authority.client(None))));
}

#[test]
fn a_stop_does_not_wait_for_a_handshake() {
    let files = Files::new(&Authority::new("one").issue());
    let app = App::new();
    let for_ever = Duration::from_secs(3600);
    let limits = Limits { handshake_timeout: for_ever, drain: for_ever, ..Limits::default() };
    let server = files.served(&app, limits);
    let mut silent = TcpStream::connect(server.address).unwrap();
    drop(server);
    rest(&mut silent);
}

#[test]
fn above_the_limit_a_tls_client_is_closed() {
    let authority = Authority::new("one");
    let files = Files::new(&authority.issue());
    let app = App::new();
    let server = files.served(&app, Limits { connections: 1, ..Limits::default() });
    let mut first = Client::open(server.address, &authority.client(None)).unwrap();
    assert_eq!(first.get("/storlinks/").unwrap().0, 200);
    assert!(Client::open(server.address, &authority.client(None)).is_err());
    assert_eq!(first.get("/storlinks/").unwrap().0, 200);
    drop(first);
    wait_until("the place is free again", || Ok(served(server.address, &authority.client(None))));
}
