//! Files that the configuration names: from where their names count.

use super::file::{FileConfig, FileTls};
use super::place::Places;
use std::path::{Path, PathBuf};

/// Makes all names whole. In the configuration file they count from its folder, in the environment from the
/// folder in which the broker was started.
pub(super) fn settle(raw: &mut FileConfig, places: &Places<'_>) {
    for (key, path) in named(raw) {
        let whole = places.folder(&key).map_or_else(
            || std::path::absolute(&*path),
            |folder| std::path::absolute(folder.join(&*path)),
        );
        // An empty name has no whole one; who reads the file will say so.
        if let Ok(whole) = whole.map(|whole| plain(&whole)) {
            *path = whole;
        }
    }
}

/// Without `.` in between.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// A path without links and detours, as far as it exists.
#[must_use]
pub fn resolved(path: &Path) -> PathBuf {
    let of_folder = || {
        let folder = path.parent()?.canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let found = path.canonicalize().ok().or_else(of_folder);
    found.unwrap_or_else(|| path.to_owned())
}

/// All files, by their keys.
fn named(raw: &mut FileConfig) -> Vec<(String, &mut PathBuf)> {
    let mut all = vec![
        ("password_file".to_owned(), raw.password_file.as_mut()),
        ("acl_file".to_owned(), raw.acl_file.as_mut()),
        ("audit_file".to_owned(), raw.audit_file.as_mut()),
        ("log_file".to_owned(), raw.log_file.as_mut()),
        ("bans.file".to_owned(), raw.bans.file.as_mut()),
        ("admin.socket".to_owned(), raw.admin.socket.as_mut()),
        ("admin.token_file".to_owned(), raw.admin.token_file.as_mut()),
        (
            "storage.directory".to_owned(),
            raw.storage.directory.as_mut(),
        ),
    ];
    if let Some(jwt) = &mut raw.authentication.jwt {
        let of_jwt = |key: &str| format!("authentication.jwt.{key}");
        all.extend([
            (of_jwt("secret_file"), jwt.secret_file.as_mut()),
            (of_jwt("public_key_file"), jwt.public_key_file.as_mut()),
            (of_jwt("jwks_file"), jwt.jwks_file.as_mut()),
            (of_jwt("jwks_ca_file"), jwt.jwks_ca_file.as_mut()),
        ]);
    }
    if let Some(http) = &mut raw.authentication.http {
        all.push(("authentication.http.ca_file".into(), http.ca_file.as_mut()));
    }
    for bridge in raw.bridge.iter_mut().flatten() {
        let key = |name: &str| format!("bridge.{name}");
        all.extend([
            (key("password_file"), bridge.password_file.as_mut()),
            (key("sas_key_file"), bridge.sas_key_file.as_mut()),
            (key("tls.ca"), bridge.tls.ca.as_mut()),
            (key("tls.certificate"), bridge.tls.certificate.as_mut()),
            (key("tls.key"), bridge.tls.key.as_mut()),
        ]);
    }
    let tls = raw.tls.iter_mut().map(|tls| ("tls", tls));
    let of_admin = raw.admin.tls.iter_mut().map(|tls| ("admin.tls", tls));
    let listeners = raw.listener.iter_mut().flatten();
    let of_listeners = listeners.filter_map(|listener| listener.tls.as_mut());
    let of_listeners = of_listeners.map(|tls| ("listener.tls", tls));
    for (section, tls) in tls.chain(of_admin).chain(of_listeners) {
        of_tls(section, tls, &mut all);
    }
    all.into_iter()
        .filter_map(|(key, path)| Some((key, path?)))
        .collect()
}

fn of_tls<'a>(
    section: &str,
    tls: &'a mut FileTls,
    all: &mut Vec<(String, Option<&'a mut PathBuf>)>,
) {
    let key = |name: &str| format!("{section}.{name}");
    all.extend([
        (key("certificate"), tls.certificate.as_mut()),
        (key("key"), tls.key.as_mut()),
        (key("client_ca"), tls.client_ca.as_mut()),
        (key("client_crl"), tls.client_crl.as_mut()),
    ]);
    for pair in tls.also.iter_mut().flatten() {
        all.push((key("also.certificate"), Some(&mut pair.certificate)));
        all.push((key("also.key"), Some(&mut pair.key)));
    }
}
