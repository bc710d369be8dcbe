//! `ringmq token`: adds, replaces and deletes tokens of operators.
//!
//! Invariant: the token itself is told once and kept nowhere; the file is replaced whole or not at all.

use crate::cli::passwd::{Draft, PasswdError, read};
use crate::control::admin::tokens::{self, Role};
use std::fs;
use std::path::PathBuf;

/// Make a token for the admin listener (admin.token_file): it is printed once, the file gets its hash
#[derive(Clone, Debug, clap::Args)]
pub struct TokenArgs {
    /// Delete the token of that name
    #[arg(long, conflicts_with_all = ["create", "role"])]
    pub delete: bool,
    /// Make the file, which must not exist yet
    #[arg(long)]
    pub create: bool,
    /// What it allows: to look, to act on clients and messages too, or all
    #[arg(long, value_enum, default_value = "view")]
    pub role: Role,
    /// The file of tokens
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose it is: it stands in the audit log with each change
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Does what `args` say; the answer is the token, or what was done.
///
/// # Errors
/// What is wrong and what to do. The file is as it was before.
pub fn run(args: &TokenArgs) -> Result<String, PasswdError> {
    let file = match args.create {
        true => args.file.clone(),
        false => fs::canonicalize(&args.file).unwrap_or_else(|_| args.file.clone()),
    };
    let wrong = |text: String| PasswdError::State {
        file: file.clone(),
        text,
    };
    if let Some(text) = tokens::wrong_name(&args.name) {
        return Err(wrong(text));
    }
    let draft = Draft::create(&file)?;
    let (text, metadata) = read(&file, args.create)?;
    let is_other = |line: &&str| tokens::name_of(line) != Some(&args.name);
    let mut lines: Vec<_> = text.lines().filter(is_other).map(str::to_owned).collect();
    let is_known = lines.len() < text.lines().count();
    let answer = if args.delete {
        if !is_known {
            return Err(wrong(format!("there is no token of {}", args.name)));
        }
        format!("{}: deleted the token of {}", file.display(), args.name)
    } else {
        let (token, line) =
            tokens::make(&args.name, args.role).map_err(|text| wrong(text.to_owned()))?;
        lines.push(line);
        token
    };
    let edited: String = lines.iter().map(|line| format!("{line}\n")).collect();
    tokens::parse(&edited).map_err(wrong)?;
    draft.put_in_place(edited.as_bytes(), metadata.as_ref())?;
    Ok(answer)
}
