//! What a training that goes on must have as it had when it began.

use std::path::{Path, PathBuf};

use super::Generator;
use crate::ingest::files;
use crate::ingest::sample::MILLION;
use crate::units::Plan;
use crate::work::Run;

impl Generator {
    /// What the result depends on and is not as it was, by name.
    pub(super) fn changes(&self, run: &Run, plan: &Plan) -> Vec<String> {
        let mut changed = Vec::new();
        let mut compare = |name: &str, then: String, now: String| {
            if then != now {
                changed.push(format!("{name} was {then} and is {now}"));
            }
        };
        let names = |cells: Vec<&String>| format!("{cells:?}");
        compare(
            "the list of models",
            names(plan.cells.iter().map(|cell| &cell.name).collect()),
            names(self.cells.iter().map(|cell| &cell.name).collect()),
        );
        let pairs = plan.cells.iter().zip(&self.cells);
        for (then, now) in pairs.filter(|(then, now)| then.name == now.name) {
            let now = serde_json::to_value(&now.config).unwrap_or_default();
            differences("", &then.config, &now, &mut compare);
        }
        let now = self.reading;
        compare("`--seed`", run.seed.to_string(), now.seed.to_string());
        compare("`--max-records`", run.max_records.to_string(), now.max_records.to_string());
        compare("`--on-error`", format!("{:?}", run.on_error), format!("{:?}", now.on_error));
        let share = |millionths: u32| format!("{}", f64::from(millionths) / f64::from(MILLION));
        compare("`--held-out`", share(run.held_out), share(now.held_out));
        compare("`--patience`", format!("{:?}", run.patience), format!("{:?}", self.patience));
        let canonical = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let shown = |inputs: &[PathBuf]| {
            let paths: Vec<PathBuf> = inputs.iter().map(canonical).collect();
            let names: Vec<String> = paths.iter().map(|p| format!("`{}`", p.display())).collect();
            names.join(", ")
        };
        compare("`--input`", shown(&run.inputs), shown(&self.inputs));
        // What was prepared is enough to go on, but not if it is of another input by now.
        if let Ok(found) = files::list(&run.inputs).and_then(|list| files::digest(&list)) {
            compare("the SHA-256 of the input", run.input_sha256.clone(), found);
        }
        changed
    }
}

/// Tells every place in which two documents differ.
fn differences(
    place: &str,
    then: &serde_json::Value,
    now: &serde_json::Value,
    tell: &mut impl FnMut(&str, String, String),
) {
    use serde_json::Value;
    let inner = |key: &str| match place {
        "" => key.to_owned(),
        place => format!("{place}.{key}"),
    };
    match (then, now) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let of = |object: &serde_json::Map<String, Value>| {
                    object.get(key).cloned().unwrap_or_default()
                };
                differences(&inner(key), &of(a), &of(b), tell);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{place}[{index}]"), a, b, tell);
            }
        }
        // Paths are from where the program ran then and runs now; what they end in is what is told.
        (Value::String(then), Value::String(now))
            if matches!(place, "pretrain_dir" | "pretrained") =>
        {
            let name = |path: &str| {
                let name = Path::new(path).file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            };
            tell(&format!("`{place}`"), name(then), name(now));
        }
        _ => tell(&format!("`{place}`"), then.to_string(), now.to_string()),
    }
}
