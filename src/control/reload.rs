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
use crate::control::text;
use crate::control::watch::bans::{self, Who};
use crate::engine::access::acl::Acl;
use crate::engine::telemetry::notes::quoted;
use crate::shard::certificates::{Part, Term, TlsFiles, TlsSettings};
use crate::shard::files;
use crate::shard::listener::ListenerConfig;
use crate::shard::orders::Reloadable;
use crate::shard::transport::client::TlsSetup;
use std::fmt;
use std::os::unix::fs::MetadataExt;
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
    /// Access rules; for the shards.
    Access(Arc<Acl>),
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

/// Files of TLS that another configuration names.
pub struct WantedTls<'a> {
    /// By the listeners' numbers.
    pub listeners: Vec<Option<TlsFiles>>,
    /// Of the admin listener.
    pub admin: Option<&'a TlsFiles>,
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
}

/// What was read, and is not in force yet.
enum Read {
    Tls(Vec<Option<Tls>>),
    AdminTls(Box<Tls>),
    Operators(Table),
    Users(Box<PasswordFile>),
    Bans(Vec<Who>, Vec<String>),
    Access(Acl),
}

impl Read {
    const fn kind(&self) -> Kind {
        match self {
            Read::Tls(_) => Kind::Tls,
            Read::AdminTls(_) => Kind::AdminTls,
            Read::Operators(_) => Kind::Operators,
            Read::Users(_) => Kind::Users,
            Read::Bans(..) => Kind::Bans,
            Read::Access(_) => Kind::Access,
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

/// What tells a file from what stood there before: its time alone may be the same, as copies keep it.
type Stamp = Option<(SystemTime, u64, u64)>;

/// When files were changed last: as they were read, and as they were seen at the last look.
struct Watched<T> {
    read: T,
    seen: T,
}

impl<T: PartialEq + Clone> Watched<T> {
    fn new(now: T) -> Self {
        Watched {
            read: now.clone(),
            seen: now,
        }
    }

    /// Whether to read again: somebody asks, or they changed and have rested since the last look, so that
    /// one that is being written is not read half.
    fn is_due(&mut self, now: T, is_asked: bool) -> bool {
        let has_settled = now != self.read && now == self.seen;
        self.seen = now.clone();
        if is_asked || has_settled {
            // Said once if it is wrong; the next change is the next attempt.
            self.read = now;
            return true;
        }
        false
    }
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
    fn load(files: &TlsFiles) -> Result<Self, FileError> {
        let read = load_one(files)?;
        Ok(AdminFiles {
            stamps: Watched::new(files.paths().map(stamp).collect()),
            tls: Arc::new(AdminTls::new(Arc::clone(&read.settings.setup.config))),
            read,
        })
    }

    fn replace(&mut self, tls: Tls) {
        self.read = tls;
        self.tls
            .replace(Arc::clone(&self.read.settings.setup.config));
    }
}

/// Tokens of operators.
struct Operators {
    path: PathBuf,
    stamp: Watched<Stamp>,
    tokens: Arc<OperatorTokens>,
}

struct Users {
    path: PathBuf,
    stamp: Watched<Stamp>,
    method: Arc<PasswordMethod>,
}

struct Tokens {
    path: Option<PathBuf>,
    stamp: Watched<Stamp>,
    method: Arc<JwtMethod>,
}

struct BanFile {
    path: PathBuf,
    stamp: Watched<Stamp>,
    bans: Vec<Who>,
    warnings: Vec<String>,
}

struct Access {
    path: PathBuf,
    stamp: Watched<Stamp>,
    acl: Arc<Acl>,
}

impl Files {
    /// Reads all files that the configuration names.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn load(config: &Config) -> Result<Self, FileError> {
        let users = config.authentication.password_file.as_ref().map(|path| {
            let stamp = Watched::new(stamp(path));
            let method = PasswordMethod::new(read_users(path)?);
            Ok(Users {
                path: path.clone(),
                stamp,
                method: Arc::new(method),
            })
        });
        let access = config.acl_file.as_ref().map(|path| {
            Ok(Access {
                path: path.clone(),
                stamp: Watched::new(stamp(path)),
                acl: Arc::new(read_access(path)?),
            })
        });
        let tokens = config.authentication.jwt.clone().map(|jwt| {
            let path = match &jwt.keys {
                KeySource::PemFile(path) | KeySource::JwksFile(path) => Some(path.clone()),
                KeySource::Secret(..) | KeySource::JwksUrl { .. } => None,
            };
            let stamp = Watched::new(path.as_deref().and_then(stamp));
            let method = JwtMethod::new(jwt).map_err(|error| FileError {
                place: None,
                text: format!("authentication.jwt: {error}"),
            })?;
            Ok(Tokens {
                path,
                stamp,
                method: Arc::new(method),
            })
        });
        let bans = config.bans.file.as_ref().map(|path| {
            let stamp = Watched::new(stamp(path));
            let (bans, warnings) = read_bans(path)?;
            Ok(BanFile {
                path: path.clone(),
                stamp,
                bans,
                warnings,
            })
        });
        let certificates = load_tls(config.listeners.iter().map(tls_files))?;
        let logs = [
            ("log_file", &config.log.file),
            ("audit_file", &config.audit_file),
        ];
        let logs = logs.into_iter().filter(|(_, path)| path.is_some());
        Ok(Files {
            config_file: config.file.clone(),
            logs: logs.map(|(key, _)| key).collect(),
            bans: bans.transpose()?,
            operators: operators(config).transpose()?,
            admin_tls: config
                .admin
                .tls
                .as_ref()
                .map(AdminFiles::load)
                .transpose()?,
            tokens: tokens.transpose()?,
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

    /// Users in force; the same through every reload.
    #[must_use]
    pub fn users(&self) -> Option<Arc<PasswordMethod>> {
        let users = self.users.as_ref()?;
        Some(Arc::clone(&users.method))
    }

    /// What in the file of bans may not be as it was meant.
    #[must_use]
    pub fn ban_warnings(&self) -> &[String] {
        self.bans.as_ref().map_or(&[], |file| &file.warnings)
    }

    /// Bans in force.
    #[must_use]
    pub fn bans(&self) -> Vec<Who> {
        self.bans
            .as_ref()
            .map_or_else(Vec::new, |file| file.bans.clone())
    }

    /// How tokens are judged; the same through every reload.
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

    /// Files of TLS are those of another configuration from now on, `listeners`' by their numbers; all files
    /// are read again, and none is put in force if one is wrong.
    pub fn reload_all(&mut self, wanted: &WantedTls<'_>) -> Vec<Result<Reloaded, FileError>> {
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
        wanted: Option<&WantedTls<'_>>,
    ) -> Vec<Result<Reloaded, FileError>> {
        let mut read = self.read(is_asked, wanted);
        let mut done = Vec::new();
        if !is_asked || read.iter().all(Result::is_ok) {
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
        wanted: Option<&WantedTls<'_>>,
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
        if let Some(files) = &mut self.admin_tls {
            let now = files.read.files.paths().map(stamp).collect();
            if files.stamps.is_due(now, is_asked) {
                let wanted = wanted.and_then(|wanted| wanted.admin);
                let tls = load_one(wanted.unwrap_or(&files.read.files));
                read.push(tls.map(|tls| Read::AdminTls(Box::new(tls))));
            }
        }
        if let Some(operators) = &mut self.operators
            && operators.stamp.is_due(stamp(&operators.path), is_asked)
        {
            read.push(read_operators(&operators.path).map(Read::Operators));
        }
        if let Some(users) = &mut self.users
            && users.stamp.is_due(stamp(&users.path), is_asked)
        {
            let file = read_users(&users.path);
            read.push(file.map(|file| Read::Users(Box::new(file))));
        }
        if let Some(file) = &mut self.bans
            && file.stamp.is_due(stamp(&file.path), is_asked)
        {
            let bans = read_bans(&file.path);
            read.push(bans.map(|(bans, warnings)| Read::Bans(bans, warnings)));
        }
        if let Some(access) = &mut self.access
            && access.stamp.is_due(stamp(&access.path), is_asked)
        {
            read.push(read_access(&access.path).map(Read::Access));
        }
        read
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
            Kind::Operators => self
                .operators
                .iter_mut()
                .for_each(|it| it.stamp.read = None),
            Kind::Users => self.users.iter_mut().for_each(|it| it.stamp.read = None),
            Kind::Bans => self.bans.iter_mut().for_each(|it| it.stamp.read = None),
            Kind::Access => self.access.iter_mut().for_each(|it| it.stamp.read = None),
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
                if let Some(files) = &mut self.admin_tls {
                    files.replace(*tls);
                }
                Reloaded::AdminCertificates
            }
            Read::Operators(table) => {
                if let Some(operators) = &self.operators {
                    operators.tokens.replace(table);
                }
                Reloaded::Operators
            }
            Read::Users(file) => {
                if let Some(users) = &self.users {
                    users.method.replace(*file);
                }
                Reloaded::Users
            }
            Read::Bans(bans, warnings) => self.put_bans(bans, &warnings),
            Read::Access(acl) => self.put_access(acl),
        }
    }

    fn put_bans(&mut self, bans: Vec<Who>, warnings: &[String]) -> Reloaded {
        if let Some(file) = self.bans.as_mut().filter(|file| file.bans != bans) {
            warnings.iter().for_each(|text| warn!("{text}"));
            file.bans.clone_from(&bans);
            return Reloaded::Bans(bans);
        }
        Reloaded::Unchanged(Reloadable::Bans)
    }

    fn put_access(&mut self, acl: Acl) -> Reloaded {
        if let Some(access) = self.access.as_mut().filter(|access| *access.acl != acl) {
            access.acl = Arc::new(acl);
            return Reloaded::Access(Arc::clone(&access.acl));
        }
        Reloaded::Unchanged(Reloadable::Rules)
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

/// Seconds since 1970.
fn now_unix_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

const DAY_S: i64 = 86_400;
/// From when on it is said that a certificate ends.
const ENDS_SOON_S: i64 = 30 * DAY_S;

/// What it is called, and what follows where it does not serve.
fn called(part: &Part) -> (String, &'static str) {
    let of_ca = |kind: &str, name: &str| format!("the certificate of the {kind} {}", quoted(name));
    match part {
        Part::Own => ("the certificate".to_owned(), "clients will not trust it"),
        Part::Between(name) => (of_ca("CA in the chain,", name), "clients will not trust it"),
        Part::ClientCa(name) => (of_ca("CA of clients,", name), "its clients are refused"),
        Part::RevocationList => (
            "the revocation list".to_owned(),
            "what was revoked later is not in it",
        ),
    }
}

/// What to say of something that has ended.
fn ended(term: &Term, now: i64) -> Option<String> {
    let (path, (what, follows)) = (term.path.display(), called(&term.part));
    let days = (now - term.ends_unix_s).div_euclid(DAY_S);
    let when = match days {
        0 => "today".to_owned(),
        1 => "yesterday".to_owned(),
        days => format!("{days} days ago"),
    };
    (term.ends_unix_s <= now).then(|| match term.part {
        Part::RevocationList => {
            format!("{path}: {what} is out of date since {when}: {follows}; get a newer one")
        }
        _ => format!("{path}: {what} ended {when}: {follows}; get a new one"),
    })
}

/// What to say of something that has ended or does not count yet, or of a certificate that will end soon.
fn warning(term: &Term, now: i64) -> Option<String> {
    let (path, (what, follows)) = (term.path.display(), called(&term.part));
    let left = term.ends_unix_s - now;
    let is_soon = term.part != Part::RevocationList && (1..=ENDS_SOON_S).contains(&left);
    let soon = || {
        let days = left / DAY_S;
        format!("{path}: {what} ends in {days} days; put a new one in its place")
    };
    let early = || {
        let days = (term.begins_unix_s - now + DAY_S - 1) / DAY_S;
        format!(
            "{path}: {what} does not count before {days} days from now: {follows}; is this machine's \
             clock right?"
        )
    };
    ended(term, now)
        .or_else(|| (term.begins_unix_s > now).then(early))
        .or_else(|| is_soon.then(soon))
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

/// Tokens of operators, if they are configured.
fn operators(config: &Config) -> Option<Result<Operators, FileError>> {
    let path = config.admin.token_file.clone()?;
    let stamp = Watched::new(stamp(&path));
    Some(read_operators(&path).map(|table| Operators {
        tokens: Arc::new(OperatorTokens::new(table)),
        path,
        stamp,
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

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.ino(), file.len()))
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
    let warnings = bans::warnings(&text);
    let warnings = warnings
        .iter()
        .map(|warning| format!("{}: {warning}", path.display()));
    Ok((bans, warnings.collect()))
}

fn read_access(path: &Path) -> Result<Acl, FileError> {
    let rules = Acl::parse(&read_text(ACCESS_RULES, path)?);
    rules.map_err(|error| FileError::new((ACCESS_RULES, path), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_told_of_in_time() {
        let term = |part| Term {
            path: "/etc/x.pem".into(),
            part,
            begins_unix_s: 900 * DAY_S,
            ends_unix_s: 1_000 * DAY_S,
        };
        let at = |part, days: i64| warning(&term(part), days * DAY_S);
        let ca = || Part::ClientCa("CN=x".to_owned());
        assert_eq!(at(Part::Own, 969), None);
        assert_eq!(
            at(Part::Own, 970).unwrap(),
            "/etc/x.pem: the certificate ends in 30 days; put a new one in its place"
        );
        assert!(at(Part::Own, 1_000).unwrap().contains("ended today"));
        assert!(at(Part::Own, 1_007).unwrap().contains("ended 7 days ago"));
        assert_eq!(
            at(ca(), 1_007).unwrap(),
            "/etc/x.pem: the certificate of the CA of clients, \"CN=x\" ended 7 days ago: its clients are \
             refused; get a new one"
        );
        let early = at(Part::Between("CN=x".to_owned()), 898).unwrap();
        assert!(
            early.contains("CA in the chain, \"CN=x\" does not count before 2 days"),
            "{early}"
        );
        assert_eq!(at(Part::RevocationList, 999), None);
        assert!(
            at(Part::RevocationList, 1_001)
                .unwrap()
                .contains("out of date since yesterday")
        );
        assert_eq!(ended(&term(Part::Own), 999 * DAY_S), None);
    }

    /// One that is moved into place may have the time of that before it, as copies keep it.
    #[test]
    fn a_file_in_anothers_place_is_another() {
        let place = std::env::temp_dir().join(format!("ringmq-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let [old, new] = ["old", "new"].map(|name| place.join(name));
        for path in [&old, &new] {
            let file = std::fs::File::create(path).unwrap();
            file.set_modified(UNIX_EPOCH).unwrap();
        }
        let before = stamp(&old);
        assert_eq!(before, stamp(&old));
        std::fs::rename(&new, &old).unwrap();
        assert_ne!(before, stamp(&old));
        std::fs::remove_dir_all(&place).unwrap();
    }

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
                stamp: Watched::new(stamp(&rules)),
                acl: Arc::new(read_access(&rules).unwrap()),
                path: rules.clone(),
            }),
            tokens: None,
            bans: Some(BanFile {
                stamp: Watched::new(stamp(&banned)),
                bans: read_bans(&banned).unwrap().0,
                warnings: Vec::new(),
                path: banned.clone(),
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
