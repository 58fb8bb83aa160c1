//! Where the ONNX Runtime library is.
//!
//! It is not linked: one binary runs with whatever build the machine has.

use std::path::{Path, PathBuf};

use crate::error::RuntimeError;

/// The variable that names the library, as other programs use it.
pub const ENVIRONMENT: &str = "ORT_DYLIB_PATH";
/// What the system's loader knows the library as.
const PLAIN_NAME: &str =
    if cfg!(target_vendor = "apple") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };
/// Where the source tree's setup lays it, from the tree's root.
const IN_TREE: &str = "target/onnxruntime";

/// Finds the library: the path given, else `ORT_DYLIB_PATH`, else beside the
/// executable, else `target/onnxruntime/` of the nearest folder above the
/// executable or the current folder that has one, else the plain name, which
/// the system's loader resolves (or not).
///
/// # Errors
/// A path given, or in the variable, that does not exist. Both are answers,
/// not hints: another library than the one named would be a surprise.
pub fn locate(given: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    let variable = std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty());
    let here = std::env::current_dir().ok();
    let executable = std::env::current_exe().ok();
    let executable_dir = executable.as_deref().and_then(Path::parent);
    search(given, variable.as_deref().map(Path::new), executable_dir, here.as_deref())
}

/// Every place that [`locate`] looks at without being told, for messages.
pub(crate) fn places() -> Vec<PathBuf> {
    let executable = std::env::current_exe().ok();
    let beside = executable.as_deref().and_then(Path::parent).map(|dir| dir.join(PLAIN_NAME));
    beside.into_iter().chain([Path::new(IN_TREE).join(PLAIN_NAME), PLAIN_NAME.into()]).collect()
}

fn search(
    given: Option<&Path>,
    variable: Option<&Path>,
    executable_dir: Option<&Path>,
    here: Option<&Path>,
) -> Result<PathBuf, RuntimeError> {
    if let Some(named) = given.or(variable) {
        // A folder is taken as the folder that holds the library.
        let found = if named.is_dir() { library_in(named) } else { Some(named.to_owned()) };
        return match found {
            Some(path) if path.is_file() => Ok(absolute(path, here)),
            _ => Err(RuntimeError::OnnxRuntimeMissing { tried: vec![named.to_owned()] }),
        };
    }
    let beside = executable_dir.and_then(library_in);
    let above = |dir: Option<&Path>| {
        dir.and_then(|dir| dir.ancestors().find_map(|folder| library_in(&folder.join(IN_TREE))))
    };
    let found = beside.or_else(|| above(executable_dir)).or_else(|| above(here));
    Ok(found.unwrap_or_else(|| PLAIN_NAME.into()))
}

/// The loader searches its own path for a name without a slash.
fn absolute(path: PathBuf, here: Option<&Path>) -> PathBuf {
    match here {
        Some(here) if path.is_relative() => here.join(path),
        _ => path,
    }
}

/// `libonnxruntime.so` in a folder, or the last in order of name of those with
/// a version (`libonnxruntime.so.1.31.1`).
fn library_in(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join(PLAIN_NAME);
    if plain.is_file() {
        return Some(plain);
    }
    let entries = std::fs::read_dir(folder).ok()?;
    let versioned = format!("{PLAIN_NAME}.");
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&versioned)) && path.is_file()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }

    #[test]
    fn the_order_is_given_variable_beside_tree_loader() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let (given, variable) = (at("given.so"), at("variable.so"));
        let (bin, here) = (at("repo/target/release"), at("elsewhere/deep"));
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&here).unwrap();
        let found = |given: Option<&Path>, variable: Option<&Path>| {
            search(given, variable, Some(&bin), Some(&here)).unwrap()
        };
        assert_eq!(found(None, None), Path::new("libonnxruntime.so"));
        touch(&at("elsewhere/target/onnxruntime/libonnxruntime.so.1.24.0"));
        assert_eq!(found(None, None), at("elsewhere/target/onnxruntime/libonnxruntime.so.1.24.0"));
        touch(&at("repo/target/onnxruntime/libonnxruntime.so.1.24.0"));
        touch(&at("repo/target/onnxruntime/libonnxruntime.so.1.31.1"));
        assert_eq!(found(None, None), at("repo/target/onnxruntime/libonnxruntime.so.1.31.1"));
        touch(&bin.join("libonnxruntime.so"));
        assert_eq!(found(None, None), bin.join("libonnxruntime.so"));
        touch(&variable);
        assert_eq!(found(None, Some(&variable)), variable);
        touch(&given);
        assert_eq!(found(Some(&given), Some(&variable)), given);
        assert_eq!(found(Some(&bin), None), bin.join("libonnxruntime.so"));
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_not_a_reason_to_look_on() {
        let missing = Path::new("/nowhere/libonnxruntime.so");
        let error = search(Some(missing), None, None, None).unwrap_err();
        assert!(error.to_string().contains("/nowhere/libonnxruntime.so"), "{error}");
        assert!(search(None, Some(missing), None, None).is_err());
    }

    #[test]
    fn a_relative_path_does_not_fall_to_the_loader_s_search() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(absolute("x.so".into(), Some(here.path())), here.path().join("x.so"));
    }
}
