//! Where a broker's configuration comes from: a file, the environment, the command line. Read at the start,
//! and again whenever it is to be renewed.

use super::flags::Flags;
use super::place::key_of;
use super::{AdminConfig, Config, ConfigError, Renewed, Sources};
use crate::control::cgroup::Bound;
use crate::control::text::{self, Remarks};
use crate::shard::files;
use std::path::{Path, PathBuf};

/// All of it, and what the machine gave at the start.
#[derive(Debug, Default)]
pub struct Source {
    /// The configuration file.
    pub path: Option<PathBuf>,
    /// The command line.
    pub flags: Flags,
    /// CPUs the process may use.
    pub cpus_available: Vec<usize>,
    /// CPU time the process may use.
    pub cpu_quota: Option<Bound>,
}

impl Source {
    /// Reads and checks it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let file = self.read()?;
        Config::load(&self.sources(file.as_ref())?, &self.flags)
    }

    /// Reads and checks it for a broker that runs by an older one.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn renew(&self, running: &Config) -> Result<Renewed, ConfigError> {
        let file = self.read()?;
        Config::renew(&self.sources(file.as_ref())?, &self.flags, running)
    }

    /// Where a broker of that configuration answers operators; nothing else of it is checked.
    ///
    /// # Errors
    /// The first thing of that which is wrong.
    pub fn load_admin(&self) -> Result<AdminConfig, ConfigError> {
        let file = self.read()?;
        AdminConfig::load(&self.sources(file.as_ref())?)
    }

    /// Keys that environment or command line say, whatever the file does.
    #[must_use]
    pub fn overridden(&self) -> Vec<String> {
        let environment = environment().unwrap_or_default();
        let variables = environment
            .iter()
            .filter_map(|(name, value)| key_of(name, value));
        self.flags
            .keys()
            .map(str::to_owned)
            .chain(variables)
            .collect()
    }

    fn read(&self) -> Result<Option<(PathBuf, String)>, ConfigError> {
        self.path.as_deref().map(read).transpose()
    }

    fn sources<'a>(&self, file: Option<&'a (PathBuf, String)>) -> Result<Sources<'a>, ConfigError> {
        Ok(Sources {
            file: file.map(|(path, text)| (path.as_path(), text.as_str())),
            environment: environment()?,
            cpus_available: self.cpus_available.clone(),
            cpu_quota: self.cpu_quota.clone(),
        })
    }
}

/// The file's whole path, from which errors and names in it count, and its text.
fn read(path: &Path) -> Result<(PathBuf, String), ConfigError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let wrong = |text: String| ConfigError::new(path.display().to_string(), text);
    let bytes = files::read(&path, files::CONFIG_BYTES_MAX);
    let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
    let text = text::decode(&bytes, Remarks::BehindValues);
    let text = text.map_err(|error| wrong(error.to_string()))?.to_string();
    Ok((path, text))
}

/// Variables that are texts.
fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(_) if name.starts_with("RINGMQ_") => {
                return Err(ConfigError::new(name, "its value is not UTF-8".to_owned()));
            }
            Err(_) => {}
        }
    }
    Ok(environment)
}
