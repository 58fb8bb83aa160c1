//! Grids: a list where `model.config` has a number stands for one model a value.

use std::path::Path;

use serde_json::{Map, Value};

use super::file::{ConfigFile, ModelConfig};
use super::resolve::value;
use super::{ConfigError, Resolved, read_file, resolve, strip};

/// What a key's companion ends in that says whether its list is a grid.
const EXPAND: &str = "_expand";
/// More models than anybody waits for are a mistake.
const MOST_CELLS: usize = 1000;
/// The name of the only model, where there is no grid.
const ONLY: &str = "model";

/// One model of a configuration.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What it differs from the others in, such as `sample_len=5,batch_size=50`;
    /// `model` if there are no others.
    pub name: String,
    /// Its configuration, every choice made.
    pub config: Resolved,
}

/// Reads a text, `name` in errors, as the models that it asks for: one, or of
/// `"sample_len": [1, 5], "batch_size": [50, 100]` all four pairs. NetShare's
/// `sample_len_expand` and the like may stand beside the lists. `folder` is what
/// paths in it start from.
///
/// # Errors
/// It is not JSON, has a key or a value that is not known, or asks for what cannot be.
pub fn cells(text: &str, name: &str, folder: &Path) -> Result<Vec<Cell>, ConfigError> {
    let plain = strip(text, name)?;
    // What is no JSON, and any other key, is for the reader of files to complain about.
    let document = serde_json::from_str::<Value>(&plain).ok();
    let model = document.as_ref().and_then(|document| document.pointer("/model/config"));
    let Some(Value::Object(model)) = model.filter(|model| has_grid(model)) else {
        let config = resolve(&read_file(&plain, name)?, folder)?;
        return Ok(vec![Cell { name: ONLY.to_owned(), config }]);
    };
    let (rest, lists) = lists(model)?;
    let count = lists.iter().try_fold(1_usize, |all, (_, list)| all.checked_mul(list.len()));
    if count.is_none_or(|count| count > MOST_CELLS) {
        let keys: Vec<&str> = lists.iter().map(|(key, _)| key.as_str()).collect();
        let reason = format!("these lists ask for more than {MOST_CELLS} models");
        return Err(value(&keys.join("`, `"), &reason));
    }
    let mut models = vec![(Vec::new(), rest)];
    for (key, list) in &lists {
        let of_each = |(names, model): &(Vec<String>, Map<String, Value>)| {
            list.iter()
                .map(|value| {
                    let (mut names, mut model) = (names.clone(), model.clone());
                    if list.len() > 1 {
                        names.push(format!("{key}={}", shown(value)));
                    }
                    model.insert(key.clone(), value.clone());
                    (names, model)
                })
                .collect::<Vec<_>>()
        };
        models = models.iter().flat_map(of_each).collect();
    }
    let whole = document.unwrap_or_default();
    let cell = |(names, model): (Vec<String>, Map<String, Value>)| {
        let mut document = whole.clone();
        if let Some(place) = document.pointer_mut("/model/config") {
            *place = Value::Object(model);
        }
        let file = read_file(&document.to_string(), name)?;
        let name = if names.is_empty() { ONLY.to_owned() } else { names.join(",") };
        Ok(Cell { name, config: resolve(&file, folder)? })
    };
    models.into_iter().map(cell).collect()
}

fn has_grid(model: &Value) -> bool {
    let is_grid = |(key, value): (&String, &Value)| value.is_array() || key.ends_with(EXPAND);
    model.as_object().is_some_and(|model| model.iter().any(is_grid))
}

/// As a file's name can hold it.
fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-+_".contains(c);
    text.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

type Lists = Vec<(String, Vec<Value>)>;

/// Takes the lists out of a model's keys, and what says that they are grids.
fn lists(model: &Map<String, Value>) -> Result<(Map<String, Value>, Lists), ConfigError> {
    let (mut rest, mut lists) = (Map::new(), Lists::new());
    for (key, found) in model {
        if let Some(of) = key.strip_suffix(EXPAND).filter(|of| is_known(of)) {
            let Some(expand) = found.as_bool() else {
                return Err(value(key, "expected true or false"));
            };
            let many = model.get(of).and_then(Value::as_array).is_some_and(|list| list.len() > 1);
            if many && !expand {
                let reason =
                    format!("`{of}` is a list of several, which is a grid; set it to true");
                return Err(value(key, &reason));
            }
            continue;
        }
        let Value::Array(list) = found else {
            rest.insert(key.clone(), found.clone());
            continue;
        };
        if key == "self_norm" {
            return Err(value(key, "it changes the encoding, which all models of a grid share"));
        }
        if list.is_empty() {
            return Err(value(key, "the list is empty"));
        }
        let named: std::collections::BTreeSet<String> = list.iter().map(shown).collect();
        if named.len() < list.len() {
            return Err(value(key, "the list has a value twice"));
        }
        lists.push((key.clone(), list.clone()));
    }
    Ok((rest, lists))
}

fn is_known(key: &str) -> bool {
    let alone = Map::from_iter([(key.to_owned(), Value::Null)]);
    serde_json::from_value::<ModelConfig>(Value::Object(alone)).is_ok()
}

/// Reads a text as one configuration: of a grid, its first model.
///
/// # Errors
/// As [`cells`].
pub(super) fn first(text: &str, name: &str) -> Result<ConfigFile, ConfigError> {
    let plain = strip(text, name)?;
    let Ok(mut document) = serde_json::from_str::<Value>(&plain) else {
        return read_file(&plain, name);
    };
    match document.pointer_mut("/model/config") {
        Some(place) if has_grid(place) => {
            if let Value::Object(model) = place {
                let (mut rest, lists) = lists(model)?;
                for (key, list) in lists {
                    rest.extend(list.into_iter().next().map(|value| (key, value)));
                }
                *place = Value::Object(rest);
            }
            read_file(&document.to_string(), name)
        }
        _ => read_file(&plain, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(model: &str) -> Result<Vec<Cell>, ConfigError> {
        let text = format!(
            r#"{{ "pre_post_processor": {{ "config": {{ "timestamp": {{ "column": "t" }},
                "metadata": [{{ "column": "a", "type": "string", "encoding": "categorical" }}] }} }},
                "model": {{ "config": {{ {model} }} }} }}"#
        );
        cells(&text, "c.json", Path::new("."))
    }

    fn names(model: &str) -> Vec<String> {
        with(model).unwrap().into_iter().map(|cell| cell.name).collect()
    }

    #[test]
    fn lists_are_grids() {
        assert_eq!(names(""), ["model"]);
        assert_eq!(names(r#""sample_len": [5], "sample_len_expand": false"#), ["model"]);
        assert_eq!(names(r#""sample_len_expand": true"#), ["model"]);
        assert_eq!(
            names(r#""sample_len": [1, 5], "sample_len_expand": true, "gp_at": ["fake"]"#),
            ["sample_len=1", "sample_len=5"]
        );
        let all = with(r#""g_lr": [1e-4, 0.001], "g_lr_expand": true, "sample_len": [1, 5]"#);
        let all = all.unwrap();
        let found: Vec<_> =
            all.iter().map(|cell| (cell.config.model.g_lr, cell.config.model.sample_len)).collect();
        assert_eq!(found, [(1e-4, 1), (1e-4, 5), (1e-3, 1), (1e-3, 5)]);
        assert_eq!(all[3].name, "g_lr=0.001,sample_len=5");
    }

    #[test]
    fn a_grid_that_cannot_be_is_refused_by_its_key() {
        let refused = |model: &str| with(model).unwrap_err().to_string();
        assert_eq!(refused(r#""sample_len": []"#), "`sample_len`: the list is empty");
        assert_eq!(refused(r#""g_lr": [1, 1]"#), "`g_lr`: the list has a value twice");
        let error = refused(r#""sample_len": [1, 2], "sample_len_expand": false"#);
        assert!(error.starts_with("`sample_len_expand`: `sample_len` is a list"), "{error}");
        let error = refused(r#""sample_len": [1, -2]"#);
        assert!(error.starts_with("c.json: model.config.sample_len: invalid value"), "{error}");
        let error = refused(r#""sample_length": [1, 2]"#);
        assert!(
            error.contains("unknown key `sample_length`, did you mean `sample_len`?"),
            "{error}"
        );
        let error = refused(r#""sample_length_expand": true"#);
        assert!(error.contains("unknown key `sample_length_expand`"), "{error}");
        assert!(refused(r#""self_norm": [true, false]"#).contains("changes the encoding"));
        let many: Vec<String> = (1..40).map(|n| n.to_string()).collect();
        let many = format!(r#""d_rounds": [{0}], "g_rounds": [{0}]"#, many.join(","));
        assert!(refused(&many).contains("more than 1000 models"));
    }
}
