//! Configuration files: NetShare's keys, comments and trailing commas allowed.

mod chunking;
mod file;
mod grid;
mod resolve;

pub use chunking::{Chunking, CutBy};
pub use file::{
    ConfigFile, FieldConfig, FieldType, FlowKind, GlobalConfig, Missing, ModelConfig,
    TimeEncodingName, TimestampConfig,
};
pub use grid::{Cell, cells};
pub(crate) use resolve::MISSING_VALUES;
pub use resolve::{Notice, Resolved, TrainingLength, resolve};

use std::path::{Path, PathBuf};

/// The configuration that a capture is trained with when none is given.
pub const DEFAULT_PCAP: &str = include_str!("../../../configs/pcap.json");

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not JSON, or not our keys.
    #[error("{place}: {reason}")]
    Syntax {
        /// File, and key or line in it.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A column that cannot be encoded as it says.
    #[error("column `{column}`: {reason}")]
    Column {
        /// The column.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// A hyperparameter that cannot be.
    #[error(transparent)]
    Model(#[from] crate::model::config::ConfigError),
    /// A value that cannot be.
    #[error("`{key}`: {reason}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a file.
///
/// # Errors
/// The file cannot be read, is not JSON, or has a key or a value that is not known.
pub fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    parse(&read_text(path)?, &path.display().to_string())
}

/// A file's text, comments included.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let fail = |source| ConfigError::Io { path: path.to_owned(), source };
    std::fs::read_to_string(path).map_err(fail)
}

/// Reads a text; `name` stands for it in errors. Of a grid of models ([`cells`]),
/// it is the first.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, name: &str) -> Result<ConfigFile, ConfigError> {
    grid::first(text, name)
}

/// A text without comments and trailing commas.
fn strip(text: &str, name: &str) -> Result<String, ConfigError> {
    let mut plain = text.to_owned();
    json_strip_comments::strip(&mut plain).map_err(|error| ConfigError::Syntax {
        place: name.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(plain)
}

/// Reads a configuration without grids and comments.
fn read_file(plain: &str, name: &str) -> Result<ConfigFile, ConfigError> {
    let syntax = |place: String, reason: String| ConfigError::Syntax { place, reason };
    let mut reader = serde_json::Deserializer::from_str(plain);
    let file = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let key = error.path().to_string();
        let place = if key == "." { name.to_owned() } else { format!("{name}: {key}") };
        syntax(place, with_suggestion(&error.inner().to_string()))
    })?;
    reader.end().map_err(|error| syntax(name.to_owned(), error.to_string()))?;
    Ok(file)
}

/// Adds the nearest known key to serde's "unknown field" message, and drops
/// the list of all of them.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(rest), Some(found)) = (message.strip_prefix("unknown field `"), quoted.next()) else {
        return message.to_owned();
    };
    let nearest = quoted
        .max_by(|a, b| strsim::jaro_winkler(a, found).total_cmp(&strsim::jaro_winkler(b, found)));
    // A grid is read as the models that it stands for, which have no lines.
    let place = rest.rsplit_once(" at line ").map(|(_, place)| format!(" (line {place})"));
    let place = place.unwrap_or_default();
    match nearest {
        Some(nearest) => format!("unknown key `{found}`, did you mean `{nearest}`?{place}"),
        None => format!("unknown key `{found}`{place}"),
    }
}

#[cfg(test)]
mod tests;
