//! Files that may change while the broker runs: certificates, users, access rules. Read anew on SIGHUP
//! and when they change.
//!
//! A file that is wrong leaves what was before in force, and is named: of those that have changed for itself,
//! of those that somebody wants to have read for all of them.
//!
//! Not here: the configuration itself ([`super::running`]).

use crate::control::admin::kept::KeptFiles;
use crate::control::admin::tls::AdminTls;
use crate::control::admin::tokens::{self, Table, Tokens as OperatorTokens};
use crate::control::authn::jwt::{JwtMethod, KeySource};
use crate::control::authn::password::{PasswordFile, PasswordMethod};
use crate::control::config::Config;
use crate::control::placed::{Due, Place, Stamp, Watched, due, stamp, unread};
use crate::control::terms::{ended, now_unix_s, warning};
use crate::control::text;
use crate::control::watch::bans::{self, Who};
use crate::engine::access::acl::Acl;
use crate::shard::certificates::{Part, Term, TlsFiles, TlsSettings};
use crate::shard::files;
use crate::shard::listener::ListenerConfig;
use crate::shard::orders::Reloadable;
use crate::shard::transport::client::TlsSetup;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::warn;

/// What is said to be reloaded.
#[must_use]
pub const fn name_of(what: Reloadable) -> &'static str {
    match what {
        Reloadable::Certificates => "certificates are",
        Reloadable::Rules => "the access file is",
        Reloadable::Bans => "the bans are",
        Reloadable::Settings => "the configuration is",
    }
}

/// A file that cannot be used, and why.
#[derive(Debug)]
pub struct FileError {
    /// The key that names it, and where it is; `None` where the text says that.
    place: Option<(&'static str, PathBuf)>,
    text: String,
}

impl FileError {
    fn new((key, path): (&'static str, &Path), text: impl fmt::Display) -> Self {
        FileError {
            place: Some((key, path.to_owned())),
            text: text.to_string(),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((key, path)) => write!(f, "{key}: {}: {}", path.display(), self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for FileError {}

/// TLS settings for new connections, by the listeners' numbers.
pub type TlsConfigs = Arc<[Option<Arc<TlsSetup>>]>;

/// What a reload has put in force.
pub enum Reloaded {
    /// Certificates, keys, CAs, revocation lists; for the shards.
    Certificates(TlsConfigs),
    /// Users and passwords; in force already.
    Users,
    /// Tokens of operators; in force already.
    Operators,
    /// Certificate and key of the admin listener; in force already.
    AdminCertificates,
    /// Keys of tokens; in force already.
    Keys,
    /// Keys of tokens are asked for; who reads them says how it went.
    Asked,
    /// Access rules, if there are any; for the shards.
    Access(Option<Arc<Acl>>),
    /// Bans.
    Bans(Vec<Who>),
    /// What was read is what was read last.
    Unchanged(Reloadable),
}

impl Reloaded {
    /// What it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Reloaded::Certificates(_) => "certificates",
            Reloaded::AdminCertificates => "the admin listener's certificate",
            Reloaded::Users => "the password file",
            Reloaded::Operators => "the tokens of operators",
            Reloaded::Keys | Reloaded::Asked => "the keys of tokens",
            Reloaded::Access(_) => "access rules",
            Reloaded::Bans(_) => "bans",
            Reloaded::Unchanged(what) => name_of(*what)
                .trim_end_matches(" are")
                .trim_end_matches(" is"),
        }
    }
}

/// Files that another configuration names.
pub struct Wanted<'a> {
    /// Of TLS, by the listeners' numbers.
    pub listeners: Vec<Option<TlsFiles>>,
    /// What names all others.
    pub config: &'a Config,
    /// It says something else of tokens of clients, or where their keys are.
    pub has_other_keys: bool,
}

/// A kind of files that are put in force together.
#[derive(Clone, Copy)]
enum Kind {
    Tls,
    AdminTls,
    Operators,
    Users,
    Bans,
    Access,
    Keys,
}

/// What was read, and is not in force yet.
enum Read {
    Tls(Vec<Option<Tls>>),
    AdminTls(Box<Tls>),
    Operators(Place, Table),
    Users(Place, Box<PasswordFile>),
    Bans(Place, Vec<Who>, Vec<String>),
    Access(Place, Acl, Vec<String>),
    /// Keys of tokens from another place, or judged otherwise.
    Keys(Option<Tokens>),
    /// The configuration names no such file any more.
    Gone(Kind),
}

impl Read {
    const fn kind(&self) -> Kind {
        match self {
            Read::Tls(_) => Kind::Tls,
            Read::AdminTls(_) => Kind::AdminTls,
            Read::Operators(..) => Kind::Operators,
            Read::Users(..) => Kind::Users,
            Read::Bans(..) => Kind::Bans,
            Read::Access(..) => Kind::Access,
            Read::Keys(_) => Kind::Keys,
            Read::Gone(kind) => *kind,
        }
    }
}

/// All files that may change.
pub struct Files {
    /// The configuration's own, which is read anew as well.
    config_file: Option<PathBuf>,
    /// Keys of what is begun anew on SIGHUP.
    logs: Vec<&'static str>,
    certificates: Vec<Option<Tls>>,
    certificate_stamps: Watched<Vec<Stamp>>,
    users: Option<Users>,
    access: Option<Access>,
    tokens: Option<Tokens>,
    bans: Option<BanFile>,
    operators: Option<Operators>,
    admin_tls: Option<AdminFiles>,
}

struct Tls {
    files: TlsFiles,
    settings: TlsSettings,
}

/// TLS of the admin listener.
struct AdminFiles {
    read: Tls,
    stamps: Watched<Vec<Stamp>>,
    tls: Arc<AdminTls>,
}

impl AdminFiles {
    fn new(read: Tls) -> Self {
        AdminFiles {
            stamps: Watched::new(read.files.paths().map(stamp).collect()),
            tls: Arc::new(AdminTls::new(Arc::clone(&read.settings.setup.config))),
            read,
        }
    }

    fn replace(&mut self, tls: Tls) {
        self.read = tls;
        self.tls
            .replace(Arc::clone(&self.read.settings.setup.config));
    }
}

/// Tokens of operators.
struct Operators {
    place: Place,
    tokens: Arc<OperatorTokens>,
}

struct Users {
    place: Place,
    method: Arc<PasswordMethod>,
}

struct Tokens {
    path: Option<PathBuf>,
    stamp: Watched<Stamp>,
    method: Arc<JwtMethod>,
}

struct BanFile {
    place: Place,
    bans: Vec<Who>,
    warnings: Vec<String>,
}

struct Access {
    place: Place,
    acl: Arc<Acl>,
    warnings: Vec<String>,
}

impl Files {
    /// Reads all files that the configuration names.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn load(config: &Config) -> Result<Self, FileError> {
        let users = config.authentication.password_file.as_ref().map(|path| {
            Ok(Users {
                place: Place::new(path),
                method: Arc::new(PasswordMethod::new(read_users(path)?)),
            })
        });
        let access = config.acl_file.as_ref().map(|path| {
            let (acl, warnings) = read_access(path)?;
            Ok(Access {
                place: Place::new(path),
                acl: Arc::new(acl),
                warnings,
            })
        });
        let bans = config.bans.file.as_ref().map(|path| {
            let place = Place::new(path);
            let (bans, warnings) = read_bans(path)?;
            Ok(BanFile {
                place,
                bans,
                warnings,
            })
        });
        let certificates = load_tls(config.listeners.iter().map(tls_files))?;
        Ok(Files {
            config_file: config.file.clone(),
            logs: logs(config),
            bans: bans.transpose()?,
            operators: operators(config).transpose()?,
            admin_tls: config
                .admin
                .tls
                .as_ref()
                .map(|files| load_one(files).map(AdminFiles::new))
                .transpose()?,
            tokens: tokens(config).transpose()?,
            certificate_stamps: Watched::new(stamps(&certificates)),
            certificates,
            users: users.transpose()?,
            access: access.transpose()?,
        })
    }

    /// TLS settings in force.
    #[must_use]
    pub fn tls(&self) -> TlsConfigs {
        let configs = self.certificates.iter().map(|tls| {
            let tls = tls.as_ref()?;
            Some(Arc::clone(&tls.settings.setup))
        });
        configs.collect()
    }

    /// What of the admin listener may change while it answers.
    #[must_use]
    pub fn admin(&self) -> KeptFiles {
        let operators = self.operators.as_ref();
        let tls = self.admin_tls.as_ref();
        KeptFiles {
            tokens: operators.map(|operators| Arc::clone(&operators.tokens)),
            tls: tls.map(|files| Arc::clone(&files.tls)),
        }
    }

    /// Rules in force.
    #[must_use]
    pub fn acl(&self) -> Option<Arc<Acl>> {
        let access = self.access.as_ref()?;
        Some(Arc::clone(&access.acl))
    }

    /// Users in force; the same through every reload that leaves a file of them.
    #[must_use]
    pub fn users(&self) -> Option<Arc<PasswordMethod>> {
        let users = self.users.as_ref()?;
        Some(Arc::clone(&users.method))
    }

    /// What in the files of rules and of bans may not be as it was meant.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        let rules = self.access.iter().flat_map(|file| &file.warnings);
        rules.chain(self.bans.iter().flat_map(|file| &file.warnings))
    }

    /// Bans in force.
    #[must_use]
    pub fn bans(&self) -> Vec<Who> {
        self.bans
            .as_ref()
            .map_or_else(Vec::new, |file| file.bans.clone())
    }

    /// How tokens are judged; the same through every reload that changes nothing of it.
    #[must_use]
    pub fn tokens(&self) -> Option<Arc<JwtMethod>> {
        let tokens = self.tokens.as_ref()?;
        Some(Arc::clone(&tokens.method))
    }

    /// What a SIGHUP does beside reading files again, of which so many were read, in an operator's words.
    #[must_use]
    pub fn on_hangup(&self, read: usize) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.logs.is_empty() {
            lines.push(format!("SIGHUP: {} begun anew", self.logs.join(" and ")));
        } else if read == 0 && self.config_file.is_none() {
            lines.push("SIGHUP: there is nothing to reload".to_owned());
        }
        let config = self.config_file.iter().map(|path| path.display());
        lines.extend(config.map(|path| format!("SIGHUP: {path} is read anew")));
        lines
    }

    /// Files are those of another configuration from now on; all are read again, and none is put in force if
    /// one is wrong.
    pub fn reload_all(&mut self, wanted: &Wanted<'_>) -> Vec<Result<Reloaded, FileError>> {
        self.logs = logs(wanted.config);
        self.reload_wanted(true, Some(wanted))
    }

    /// Reads files again: those that have changed, each for itself, or all if `is_asked`: then none is put in
    /// force if one is wrong.
    pub fn reload(&mut self, is_asked: bool) -> Vec<Result<Reloaded, FileError>> {
        self.reload_wanted(is_asked, None)
    }

    fn reload_wanted(
        &mut self,
        is_asked: bool,
        wanted: Option<&Wanted<'_>>,
    ) -> Vec<Result<Reloaded, FileError>> {
        let mut read = self.read(is_asked, wanted);
        let mut done = Vec::new();
        let has_other_keys = wanted.is_some_and(|wanted| wanted.has_other_keys);
        if !has_other_keys && (!is_asked || read.iter().all(Result::is_ok)) {
            done.extend(self.reload_tokens(is_asked));
        }
        if is_asked && read.iter().any(Result::is_err) || done.iter().any(Result::is_err) {
            // The others are taken when they are looked at next, each for itself.
            let fine = read.iter().flatten().map(|read| read.kind());
            let fine: Vec<_> = fine.collect();
            fine.into_iter().for_each(|kind| self.leave_unread(kind));
            read.retain(Result::is_err);
        }
        for read in read {
            done.push(read.map(|read| self.put(read)));
        }
        done
    }

    /// Reads what is due; nothing of it is in force yet.
    fn read(
        &mut self,
        is_asked: bool,
        wanted: Option<&Wanted<'_>>,
    ) -> Vec<Result<Read, FileError>> {
        let mut read = Vec::new();
        let now = stamps(&self.certificates);
        let is_wanted = wanted.is_some_and(|wanted| wanted.listeners.iter().any(Option::is_some));
        if (!now.is_empty() || is_wanted) && self.certificate_stamps.is_due(now, is_asked) {
            let listeners = self.certificates.iter();
            let files = listeners.map(|tls| tls.as_ref().map(|tls| &tls.files));
            let tls = match wanted {
                Some(wanted) => load_tls(wanted.listeners.iter().map(Option::as_ref)),
                None => load_tls(files),
            };
            read.push(tls.map(Read::Tls));
        }
        let wanted_tls = wanted.map(|wanted| wanted.config.admin.tls.as_ref());
        match (&mut self.admin_tls, wanted_tls) {
            (Some(_), Some(None)) => read.push(Ok(Read::Gone(Kind::AdminTls))),
            (None, Some(Some(files))) => {
                let tls = load_one(files);
                read.push(tls.map(|tls| Read::AdminTls(Box::new(tls))));
            }
            (Some(files), wanted) => {
                let now = files.read.files.paths().map(stamp).collect();
                if files.stamps.is_due(now, is_asked) {
                    let tls = load_one(wanted.flatten().unwrap_or(&files.read.files));
                    read.push(tls.map(|tls| Read::AdminTls(Box::new(tls))));
                }
            }
            (None, _) => {}
        }
        self.read_lists(is_asked, wanted, &mut read);
        read
    }

    /// The same of tokens of operators, users, bans and rules, and where keys of tokens come from elsewhere.
    fn read_lists(
        &mut self,
        is_asked: bool,
        wanted: Option<&Wanted<'_>>,
        read: &mut Vec<Result<Read, FileError>>,
    ) {
        let named = |of: fn(&Config) -> Option<&PathBuf>| wanted.map(|wanted| of(wanted.config));
        let operators = self.operators.as_mut().map(|it| &mut it.place);
        let wanted_operators = named(|config| config.admin.token_file.as_ref());
        match due(operators, wanted_operators, is_asked) {
            Due::Nothing => {}
            Due::Gone => read.push(Ok(Read::Gone(Kind::Operators))),
            Due::Read(place) => {
                let table = read_operators(&place.path);
                read.push(table.map(|table| Read::Operators(place, table)));
            }
        }
        let users = self.users.as_mut().map(|it| &mut it.place);
        let wanted_users = named(|config| config.authentication.password_file.as_ref());
        match due(users, wanted_users, is_asked) {
            Due::Nothing => {}
            Due::Gone => read.push(Ok(Read::Gone(Kind::Users))),
            Due::Read(place) => {
                let file = read_users(&place.path);
                read.push(file.map(|file| Read::Users(place, Box::new(file))));
            }
        }
        let bans = self.bans.as_mut().map(|it| &mut it.place);
        match due(bans, named(|config| config.bans.file.as_ref()), is_asked) {
            Due::Nothing => {}
            Due::Gone => read.push(Ok(Read::Gone(Kind::Bans))),
            Due::Read(place) => {
                let bans = read_bans(&place.path);
                read.push(bans.map(|(bans, warnings)| Read::Bans(place, bans, warnings)));
            }
        }
        let access = self.access.as_mut().map(|it| &mut it.place);
        match due(access, named(|config| config.acl_file.as_ref()), is_asked) {
            Due::Nothing => {}
            Due::Gone => read.push(Ok(Read::Gone(Kind::Access))),
            Due::Read(place) => {
                let acl = read_access(&place.path);
                read.push(acl.map(|(acl, warnings)| Read::Access(place, acl, warnings)));
            }
        }
        if let Some(wanted) = wanted.filter(|wanted| wanted.has_other_keys) {
            read.push(tokens(wanted.config).transpose().map(Read::Keys));
        }
    }

    /// Keys of tokens.
    fn reload_tokens(&mut self, is_asked: bool) -> Option<Result<Reloaded, FileError>> {
        let tokens = self.tokens.as_mut()?;
        let now = tokens.path.as_deref().and_then(stamp);
        if !tokens.stamp.is_due(now, is_asked) {
            return None;
        }
        Some(match tokens.method.reload() {
            Ok(true) => Ok(Reloaded::Keys),
            Ok(false) => Ok(Reloaded::Asked),
            Err(error) => Err(FileError {
                place: None,
                text: format!("authentication.jwt: {error}"),
            }),
        })
    }

    /// Has a kind read again when it is looked at next.
    fn leave_unread(&mut self, kind: Kind) {
        match kind {
            Kind::Tls => self.certificate_stamps.read.clear(),
            Kind::AdminTls => self
                .admin_tls
                .iter_mut()
                .for_each(|it| it.stamps.read.clear()),
            Kind::Operators => unread(self.operators.as_mut().map(|it| &mut it.place)),
            Kind::Users => unread(self.users.as_mut().map(|it| &mut it.place)),
            Kind::Bans => unread(self.bans.as_mut().map(|it| &mut it.place)),
            Kind::Access => unread(self.access.as_mut().map(|it| &mut it.place)),
            Kind::Keys => {}
        }
    }

    /// Puts in force what was read, or says what is to be.
    fn put(&mut self, read: Read) -> Reloaded {
        match read {
            Read::Tls(certificates) => {
                self.certificates = certificates;
                Reloaded::Certificates(self.tls())
            }
            Read::AdminTls(tls) => {
                match &mut self.admin_tls {
                    Some(files) => files.replace(*tls),
                    none => *none = Some(AdminFiles::new(*tls)),
                }
                Reloaded::AdminCertificates
            }
            Read::Operators(place, table) => {
                self.put_operators(place, table);
                Reloaded::Operators
            }
            Read::Users(place, file) => {
                self.put_users(place, *file);
                Reloaded::Users
            }
            Read::Bans(place, bans, warnings) => self.put_bans(place, bans, warnings),
            Read::Access(place, acl, warnings) => self.put_access(place, acl, warnings),
            Read::Keys(tokens) => {
                self.tokens = tokens;
                Reloaded::Keys
            }
            Read::Gone(kind) => self.forget(kind),
        }
    }

    fn put_operators(&mut self, place: Place, table: Table) {
        match &mut self.operators {
            Some(operators) => {
                operators.tokens.replace(table);
                operators.place = place;
            }
            none => {
                let tokens = Arc::new(OperatorTokens::new(table));
                *none = Some(Operators { place, tokens });
            }
        }
    }

    fn put_users(&mut self, place: Place, file: PasswordFile) {
        match &mut self.users {
            Some(users) => {
                users.method.replace(file);
                users.place = place;
            }
            none => {
                let method = Arc::new(PasswordMethod::new(file));
                *none = Some(Users { place, method });
            }
        }
    }

    fn put_bans(&mut self, place: Place, bans: Vec<Who>, warnings: Vec<String>) -> Reloaded {
        let is_same = self.bans.as_ref().is_some_and(|file| file.bans == bans);
        if !is_same {
            warnings.iter().for_each(|text| warn!("{text}"));
        }
        self.bans = Some(BanFile {
            place,
            bans: bans.clone(),
            warnings,
        });
        match is_same {
            true => Reloaded::Unchanged(Reloadable::Bans),
            false => Reloaded::Bans(bans),
        }
    }

    fn put_access(&mut self, place: Place, acl: Acl, warnings: Vec<String>) -> Reloaded {
        if let Some(access) = self.access.as_mut().filter(|access| *access.acl == acl) {
            access.place = place;
            return Reloaded::Unchanged(Reloadable::Rules);
        }
        warnings.iter().for_each(|text| warn!("{text}"));
        let acl = Arc::new(acl);
        self.access = Some(Access {
            place,
            acl: Arc::clone(&acl),
            warnings,
        });
        Reloaded::Access(Some(acl))
    }

    /// A file is not named any more: nothing of it is in force.
    fn forget(&mut self, kind: Kind) -> Reloaded {
        match kind {
            Kind::Bans => {
                self.bans = None;
                Reloaded::Bans(Vec::new())
            }
            Kind::Access => {
                self.access = None;
                Reloaded::Access(None)
            }
            Kind::Users => {
                self.users = None;
                Reloaded::Users
            }
            Kind::AdminTls => {
                self.admin_tls = None;
                Reloaded::AdminCertificates
            }
            Kind::Operators | Kind::Tls | Kind::Keys => {
                self.operators = None;
                Reloaded::Operators
            }
        }
    }

    /// Seconds until the first server certificate expires; negative once it has.
    #[must_use]
    pub fn certificate_expires_s(&self) -> Option<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let own = self.terms().filter(|term| term.part == Part::Own);
        let first = own.map(|term| term.ends_unix_s).min()?;
        Some(first.saturating_sub_unsigned(now.as_secs()))
    }

    fn terms(&self) -> impl Iterator<Item = &Term> {
        let of_admin = self.admin_tls.iter().map(|files| &files.read);
        let all = self.certificates.iter().flatten().chain(of_admin);
        all.flat_map(|tls| &tls.settings.terms)
    }

    /// The first server certificate that has ended.
    #[must_use]
    pub fn ended_certificate(&self) -> Option<String> {
        let mut own = self.terms().filter(|term| term.part == Part::Own);
        own.find_map(|term| ended(term, now_unix_s()))
    }

    /// What to warn of: certificates that end soon or have ended, revocation lists that are out of date.
    #[must_use]
    pub fn term_warnings(&self) -> Vec<String> {
        let now = now_unix_s();
        let warnings = self.terms().filter_map(|term| warning(term, now));
        let mut all: Vec<_> = warnings.collect();
        // Several listeners may have the same files.
        all.sort();
        all.dedup();
        all
    }
}

fn tls_files(listener: &ListenerConfig) -> Option<&TlsFiles> {
    listener.tls.as_ref()
}

fn load_tls<'a>(
    listeners: impl Iterator<Item = Option<&'a TlsFiles>>,
) -> Result<Vec<Option<Tls>>, FileError> {
    listeners
        .map(|files| files.map(load_one).transpose())
        .collect()
}

fn load_one(files: &TlsFiles) -> Result<Tls, FileError> {
    let settings = files.load().map_err(|error| FileError {
        place: None,
        text: error.to_string(),
    })?;
    Ok(Tls {
        files: files.clone(),
        settings,
    })
}

/// Keys of files that are begun anew on SIGHUP.
fn logs(config: &Config) -> Vec<&'static str> {
    let logs = [
        ("log_file", &config.log.file),
        ("audit_file", &config.audit_file),
    ];
    let logs = logs.into_iter().filter(|(_, path)| path.is_some());
    logs.map(|(key, _)| key).collect()
}

/// Tokens of operators, if they are configured.
fn operators(config: &Config) -> Option<Result<Operators, FileError>> {
    let place = Place::new(config.admin.token_file.as_ref()?);
    Some(read_operators(&place.path).map(|table| Operators {
        tokens: Arc::new(OperatorTokens::new(table)),
        place,
    }))
}

/// Tokens of clients, if they are configured.
fn tokens(config: &Config) -> Option<Result<Tokens, FileError>> {
    let jwt = config.authentication.jwt.clone()?;
    let path = match &jwt.keys {
        KeySource::PemFile(path) | KeySource::JwksFile(path) => Some(path.clone()),
        KeySource::Secret(..) | KeySource::JwksUrl { .. } => None,
    };
    let stamp = Watched::new(path.as_deref().and_then(stamp));
    let method = JwtMethod::new(jwt).map_err(|error| FileError {
        place: None,
        text: format!("authentication.jwt: {error}"),
    });
    Some(method.map(|method| Tokens {
        path,
        stamp,
        method: Arc::new(method),
    }))
}

fn read_operators(path: &Path) -> Result<Table, FileError> {
    let key = "admin.token_file";
    let text = read_text(key, path)?;
    tokens::parse(&text).map_err(|error| FileError::new((key, path), error))
}

fn stamps(certificates: &[Option<Tls>]) -> Vec<Stamp> {
    let all = certificates.iter().flatten();
    all.flat_map(|tls| tls.files.paths().map(stamp)).collect()
}

const USERS: &str = "password_file";
const ACCESS_RULES: &str = "acl_file";
const BANS_FILE: &str = "bans.file";

fn read_text(key: &'static str, path: &Path) -> Result<String, FileError> {
    let wrong = |error: &dyn fmt::Display| FileError::new((key, path), error);
    let bytes = files::read(path, files::LIST_BYTES_MAX).map_err(|error| wrong(&error))?;
    text::decode_list(&bytes).map_err(|error| wrong(&error))
}

fn read_users(path: &Path) -> Result<PasswordFile, FileError> {
    let users = PasswordFile::parse(&read_text(USERS, path)?);
    users.map_err(|error| FileError::new((USERS, path), error))
}

/// Those of a file, and what in it may not be as it was meant.
fn read_bans(path: &Path) -> Result<(Vec<Who>, Vec<String>), FileError> {
    let text = read_text(BANS_FILE, path)?;
    let bans = bans::parse(&text).map_err(|error| FileError::new((BANS_FILE, path), error))?;
    Ok((bans, placed(path, &bans::warnings(&text))))
}

fn read_access(path: &Path) -> Result<(Acl, Vec<String>), FileError> {
    let text = read_text(ACCESS_RULES, path)?;
    let rules = Acl::parse(&text).map_err(|error| FileError::new((ACCESS_RULES, path), error))?;
    Ok((rules, placed(path, &Acl::warnings(&text))))
}

/// Warnings with the file that they are about.
fn placed(path: &Path, warnings: &[String]) -> Vec<String> {
    let path = path.display();
    let placed = warnings.iter().map(|warning| format!("{path}: {warning}"));
    placed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_the_same_as_before_is_not_put_in_force_again() {
        let place = std::env::temp_dir().join(format!("ringmq-reload-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let (rules, banned) = (place.join("access"), place.join("bans"));
        let write = |access: &str, bans: &str| {
            std::fs::write(&rules, access).unwrap();
            std::fs::write(&banned, bans).unwrap();
        };
        write("topic read a\ntopic read b\n", "client x\n");
        let mut files = Files {
            operators: None,
            admin_tls: None,
            config_file: None,
            logs: Vec::new(),
            certificates: Vec::new(),
            certificate_stamps: Watched::new(Vec::new()),
            users: None,
            access: Some(Access {
                place: Place::new(&rules),
                acl: Arc::new(read_access(&rules).unwrap().0),
                warnings: Vec::new(),
            }),
            tokens: None,
            bans: Some(BanFile {
                place: Place::new(&banned),
                bans: read_bans(&banned).unwrap().0,
                warnings: Vec::new(),
            }),
        };
        let mut reload = || files.reload(true).into_iter().map(Result::unwrap);
        let is_same = |reloaded| matches!(reloaded, Reloaded::Unchanged(_));
        write(
            "# The other way round.\ntopic read b\ntopic read a\n",
            "client x\n",
        );
        assert!(reload().all(is_same));
        write("topic read a\n", "client y\n");
        assert!(!reload().any(is_same));
        assert!(reload().all(is_same));
        std::fs::remove_dir_all(&place).unwrap();
    }
}
