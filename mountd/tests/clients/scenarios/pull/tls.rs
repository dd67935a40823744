//! A registry with TLS and its own authority, clients with certificates, and a proxy.

use std::fs;

use super::{app, pull_of};
use crate::harness::{self, Site};
use crate::lamina::Lamina;
use crate::proxy::{Proxy, Request};
use crate::registry::{Access, Registry};

/// A name that only the proxy can resolve.
const NAME: &str = "registry.test";
/// BASE64 of `user:pass`.
const CREDENTIALS: &str = "Basic dXNlcjpwYXNz";

pub fn run(site: &mut Site, lamina: &Lamina) {
    let (ca, certs) = (site.directory("ca"), site.directory("certs"));
    make_authority(&ca);
    sign(site, &ca, "server", &format!("subjectAltName=IP:127.0.0.1,DNS:{NAME}"));
    sign(site, &ca, "client", "extendedKeyUsage=clientAuth");
    let tls = format!("  tls:\n    certificate: {ca}/server.crt\n    key: {ca}/server.key\n");
    let mut registry = Registry::start(site, &Access { tls: tls.clone(), passwords: None });
    authorities(site, lamina, &registry, &certs);
    proxies(site, lamina, &registry, &certs);
    registry.stop();
    let tls = format!("{tls}    clientcas: [{ca}/ca.crt]\n");
    let mut registry = Registry::start(site, &Access { tls, passwords: None });
    certificates(site, lamina, &registry, &certs);
    registry.stop();
}

fn openssl(words: &[&str]) {
    harness::call("openssl", words).expect();
}

fn make_authority(ca: &str) {
    let (key, certificate) = (format!("{ca}/ca.key"), format!("{ca}/ca.crt"));
    let words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key];
    openssl(&[&words[..], &["-subj", "/CN=test-ca", "-days", "2", "-out", &certificate]].concat());
}

/// Makes a key and a certificate with an extension.
fn sign(site: &Site, ca: &str, name: &str, extension: &str) {
    let file = |end: &str| format!("{ca}/{name}.{end}");
    let (key, request, certificate) = (file("key"), file("csr"), file("crt"));
    let subject = format!("/CN={name}");
    let words = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key];
    openssl(&[&words[..], &["-subj", &subject, "-out", &request]].concat());
    let extension = site.write(&format!("{name}.ext"), format!("{extension}\n"));
    let (authority, authority_key) = (format!("{ca}/ca.crt"), format!("{ca}/ca.key"));
    let words = ["x509", "-req", "-in", &request, "-CA", &authority, "-CAkey", &authority_key];
    let rest = ["-CAcreateserial", "-days", "2", "-out", &certificate, "-extfile", &extension];
    openssl(&[&words[..], &rest].concat());
}

/// The trusted authorities.
fn authorities(site: &mut Site, lamina: &Lamina, registry: &Registry, certs: &str) {
    let app = app(registry);
    let authority = site.at("ca/ca.crt");
    let unknown = pull_of(lamina, &[&app]);
    site.refused("unknown_authority", &unknown, &["UnknownIssuer", "x/app:1"]);
    fs::copy(&authority, format!("{certs}/ca.crt")).expect("a certificate");
    site.succeeds("cert_dir", &pull_of(lamina, &["--cert-dir", certs, &app]));
    let own = site.directory(&format!("home/.config/containers/certs.d/{}", registry.host));
    fs::copy(&authority, format!("{own}/own.crt")).expect("a certificate");
    let pull = ["image", "pull", &app];
    let mut command = lamina.command(&pull);
    command.env("HOME", site.at("home")).env("XDG_CONFIG_HOME", "");
    site.succeeds("certs_of_the_user", &harness::run(&mut command));
    let mut command = lamina.command(&pull);
    command.env("SSL_CERT_FILE", &authority);
    site.succeeds("certs_of_the_host", &harness::run(&mut command));
    site.succeeds("no_verification", &pull_of(lamina, &["--tls-verify=false", &app]));
}

fn proxies(site: &mut Site, lamina: &Lamina, registry: &Registry, certs: &str) {
    let proxy = Proxy::start(NAME);
    let port = registry.host.rsplit(':').next().expect("a port");
    let named = format!("{NAME}:{port}/x/app:1");
    let pull = |image: &str, variables: &[(&str, &str)]| {
        let mut command = lamina.command(&["image", "pull", "--cert-dir", certs, image]);
        harness::run(command.envs(variables.iter().copied()))
    };
    let with_user = format!("http://user:pass@{}", proxy.address);
    site.succeeds("proxy", &pull(&named, &[("https_proxy", &with_user)]));
    let wanted =
        Request { line: format!("CONNECT {NAME}:{port}"), authorization: CREDENTIALS.to_owned() };
    let seen = proxy.requests();
    let all = !seen.is_empty() && seen.iter().all(|request| *request == wanted);
    site.holds("proxy_is_used", all, format!("expected {wanted:?} got {seen:?}"));
    let without = pull(&named, &[("https_proxy", &proxy.address), ("no_proxy", ".other,test")]);
    site.refused("no_proxy", &without, &[NAME]);
    let own = pull(&app(registry), &[("https_proxy", &proxy.address)]);
    site.succeeds("no_proxy_for_this_machine", &own);
    site.equal("proxy_is_not_used", proxy.requests().len(), seen.len());
}

/// A registry that requires a client certificate.
fn certificates(site: &mut Site, lamina: &Lamina, registry: &Registry, certs: &str) {
    let app = app(registry);
    let pull = || pull_of(lamina, &[&app, "--cert-dir", certs]);
    site.refused("no_certificate", &pull(), &["x/app:1: "]);
    let (certificate, key) = (format!("{certs}/client.cert"), format!("{certs}/client.key"));
    fs::copy(site.at("ca/client.crt"), &certificate).expect("a certificate");
    site.refused("certificate_without_key", &pull(), &[&certificate, &key]);
    fs::copy(site.at("ca/client.key"), &key).expect("a key");
    site.succeeds("certificate", &pull());
}
