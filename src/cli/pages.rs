//! What shells and `man` know of the commands, written by the commands' own description.

use clap::{Args, Command};
use clap_complete::Shell;
use std::io;
use std::path::PathBuf;

/// Which shell.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Where manual pages go.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Folder for one page per command, made if it is not there [default: the first goes to standard output]
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
}

/// What that shell has to read.
#[must_use]
pub fn completions(args: &CompletionsArgs, mut commands: Command) -> String {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut commands, "ringmq", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes manual pages; the answer is the first page, or where all are.
///
/// # Errors
/// They cannot be written.
pub fn man(args: &ManArgs, commands: Command) -> Result<String, String> {
    let Some(folder) = &args.to else {
        let mut page = Vec::new();
        let written = clap_mangen::Man::new(commands).render(&mut page);
        written.map_err(|error| error.to_string())?;
        return Ok(String::from_utf8_lossy(&page).into_owned());
    };
    let wrong = |error: io::Error| format!("--to: {}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(wrong)?;
    clap_mangen::generate_to(commands, folder).map_err(wrong)?;
    Ok(format!("the manual pages are in {}", folder.display()))
}
