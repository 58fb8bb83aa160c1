//! Configuration files: what loads, what is said about what does not.

use std::path::Path;

use super::*;
use crate::autoregressive::ModelClass;
use crate::model::{Discretize, NoiseDraw};
use ns_model_format::schema::{SpanTags, TraceKind};

fn resolved(text: &str) -> Result<Resolved, ConfigError> {
    resolve(&parse(text, "test.json")?, Path::new("/data"))
}

const SMALL: &str = r#"{
    // comments and trailing commas are allowed
    "global_config": { "dataset_type": "dns", "original_data_file": "dns.csv", },
    "pre_post_processor": { "config": {
        "timestamp": { "column": "ts" },
        "metadata": [ { "column": "src", "type": "integer", "encoding": "bit", "n_bits": 32 } ],
        "timeseries": [ { "column": "rtt", "type": "float" }, ], /* and these */
    } },
}"#;

fn with(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    SMALL.replacen(from, to, 1)
}

fn error(text: &str) -> String {
    resolved(text).expect_err("an error").to_string()
}

#[test]
fn every_file_in_configs_loads_and_resolves() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("configs/") {
        let path = entry.expect("an entry").path();
        let file = read(&path).unwrap_or_else(|error| panic!("{error}"));
        let resolved = resolve(&file, Path::new(".")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(resolved.notices, [], "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 2);
}

#[test]
fn comments_and_trailing_commas_are_allowed_and_defaults_are_netshare_s() {
    let config = resolved(SMALL).expect("a good file");
    assert_eq!(config.kind, TraceKind::Custom);
    assert_eq!(config.input.as_deref(), Some(Path::new("/data/dns.csv")));
    assert_eq!(config.flow, FlowKind::Unidirectional);
    assert_eq!(config.vec_size, 10);
    assert_eq!(config.length, TrainingLength::Iterations(200_000));
    let model = config.model;
    assert_eq!((model.batch_size, model.d_rounds, model.g_rounds), (100, 5, 1));
    assert_eq!((model.g_lr, model.d_gp_coe), (1e-4, 10.0));
}

#[test]
fn overwrite_is_about_work_folders_and_no_part_of_the_model() {
    assert!(!resolved(SMALL).expect("a good file").overwrite);
    for (value, expected) in [("true", true), ("false", false), ("null", false)] {
        let config = resolved(&with("\"dns\"", &format!("\"dns\", \"overwrite\": {value}")));
        let config = config.expect("a good file");
        assert_eq!((config.overwrite, config.notices.len()), (expected, 0));
        let written = serde_json::to_string(&config).expect("plain data");
        assert!(!written.contains("overwrite"), "{written}");
    }
}

#[test]
fn what_has_no_effect_on_an_autoregressive_model_is_said_of_it_alone() {
    let text = with("\"dns\"", "\"dns\", \"n_chunks\": 3");
    let mut config = resolved(&text).expect("a good file");
    let mut said = |class| {
        config.set_class(class);
        config.notices().into_iter().flat_map(|notice| notice.keys).collect::<Vec<_>>()
    };
    assert_eq!(said(ModelClass::Autoregressive), ["n_chunks"]);
    assert!(said(ModelClass::Doppelganger).is_empty());
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    assert_eq!(
        error(&with("\"dataset_type\"", "\"data_set_type\"")),
        "test.json: global_config.data_set_type: unknown key `data_set_type`, did you mean \
         `dataset_type`? (line 3 column 38)"
    );
    assert_eq!(
        error(&with("\"n_bits\"", "\"nbits\"")),
        "test.json: pre_post_processor.config.metadata[0].nbits: unknown key `nbits`, did you \
         mean `n_bits`? (line 6 column 86)"
    );
}

#[test]
fn wrong_types_name_the_key() {
    let message = error(&with("\"n_bits\": 32", "\"n_bits\": \"32\""));
    assert!(
        message
            .starts_with("test.json: pre_post_processor.config.metadata[0].n_bits: invalid type"),
        "{message}"
    );
    assert!(error("{").starts_with("test.json: "), "{}", error("{"));
}

#[test]
fn values_that_cannot_be_are_refused_by_key() {
    let cases = [
        (with("\"n_bits\": 32", "\"n_bits\": null"), "column `src`: `bit` needs `n_bits`"),
        (with("\"bit\"", "\"bits\""), "column `src`: encoding `bits` is not known"),
        (with("\"rtt\"", "\"src\""), "column `src`: is named twice"),
        (with("\"timestamp\": { \"column\": \"ts\" },", ""), "timestamp`: missing"),
        (with("\"dns\"", "\"dns\", \"dp\": true"), "`dp`: training with differential privacy"),
        (
            with("\"timestamp\"", "\"flow\": \"conversation\", \"timestamp\""),
            "`flow`: `conversation` needs packets",
        ),
        (with("\"timestamp\"", "\"max_flow_len\": 0, \"timestamp\""), "`max_flow_len`: 0 records"),
        (with("\"timestamp\"", "\"idle_timeout\": -1, \"timestamp\""), "`idle_timeout`: -1"),
    ];
    for (text, expected) in cases {
        let message = error(&text);
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
    let model = |keys: &str| {
        let tail = SMALL.trim_end().trim_end_matches('}').trim_end().trim_end_matches(',');
        error(&format!("{tail}, \"model\": {{ \"config\": {{ {keys} }} }} }}"))
    };
    assert_eq!(model("\"batch_size\": 1"), "`batch_size`: 1 is not in 2 to 65536");
    assert_eq!(model("\"d_beta1\": 1.5"), "`d_beta1`: 1.5 is not in 0 to 1 (exclusive)");
    assert_eq!(model("\"sample_len\": []"), "`sample_len`: the list is empty");
    assert_eq!(
        model("\"epoch_checkpoint_freq\": 0"),
        "`epoch_checkpoint_freq`: 0 epochs are no interval"
    );
    assert!(model("\"leaky_relu\": true").starts_with("`leaky_relu`: "));
    assert!(model("\"initial_state\": \"one\"").contains("expected `random` or `zero`"));
}

#[test]
fn how_noise_is_drawn_and_attributes_are_made_discrete_is_as_the_file_says() {
    let model = |keys: &str| {
        let tail = SMALL.trim_end().trim_end_matches('}').trim_end().trim_end_matches(',');
        resolved(&format!("{tail}, \"model\": {{ \"config\": {{ {keys} }} }} }}"))
    };
    let chosen = |keys: &str| {
        let config = model(keys).expect("a good file");
        let keys: Vec<String> = config.notices.into_iter().flat_map(|notice| notice.keys).collect();
        (config.model.noise_draw, config.model.discretize, keys.join(" "))
    };
    let none = String::new();
    assert_eq!(chosen(""), (NoiseDraw::PerIteration, Discretize::Argmax, none.clone()));
    assert_eq!(
        chosen("\"noise_draw\": \"per_round\", \"discretize\": \"sample\""),
        (NoiseDraw::PerRound, Discretize::Sample, none.clone())
    );
    assert_eq!(
        chosen("\"noise_draw\": \"per_iteration\", \"discretize\": \"argmax\""),
        (NoiseDraw::PerIteration, Discretize::Argmax, none)
    );
    let (.., notices) = chosen("\"noise_draw\": \"per_round\", \"d_rounds\": 1");
    assert_eq!(notices, "noise_draw");
    for (keys, expected) in [
        (
            "\"noise_draw\": \"always\"",
            "`noise_draw`: `always` is not known; expected `per_iteration` or `per_round`",
        ),
        (
            "\"discretize\": \"round\"",
            "`discretize`: `round` is not known; expected `argmax` or `sample`",
        ),
        ("\"gp_at\": \"real\"", "`gp_at`: `real` is not known; expected `interpolate` or `fake`"),
    ] {
        assert_eq!(model(keys).expect_err("an error").to_string(), expected);
    }
}

#[test]
fn chunks_are_as_the_file_says() {
    let chunked = |global: &str, fields: &str, manager: &str| {
        let text = with("\"dns\"", &format!("\"dns\"{global}"));
        let text = text.replacen("\"timestamp\"", &format!("{fields}\"timestamp\""), 1);
        let text = text.trim_end().trim_end_matches('}').trim_end().trim_end_matches(',');
        format!("{text}, \"model_manager\": {{ \"config\": {{ {manager} }} }} }}")
    };
    let config = resolved(&chunked("", "", "")).expect("a good file");
    assert_eq!((config.chunks, config.notices), (Chunking::default(), Vec::new()));
    let all = "\"df2chunks\": \"fixed_size\", \"split_name\": \"multichunk_dep_v1\", \
               \"truncate\": \"per_chunk\", ";
    let manager = "\"pretrain_non_dp\": true, \"pretrain_non_dp_reduce_time\": 2.5, \
                   \"skip_chunk0_train\": false, \"pretrain_dir\": null";
    let config = resolved(&chunked(", \"n_chunks\": 7", all, manager)).expect("a good file");
    let expected = Chunking {
        n_chunks: 7,
        df2chunks: CutBy::FixedSize,
        tags: SpanTags::FirstPart,
        reduce_time: Some(2.5),
    };
    assert_eq!((config.chunks, config.notices), (expected, Vec::new()));
    // Of one chunk, and where they have no effect, a note says so.
    let config = resolved(&chunked(", \"n_chunks\": 1", all, manager)).expect("a good file");
    assert_eq!(config.notices.len(), 1);
    assert_eq!(config.notices[0].keys.len(), 5);
    let fields = "\"truncate\": \"per_flow\", ";
    let manager = "\"pretrain_non_dp\": false, \"pretrain_non_dp_reduce_time\": 4.0, \
                   \"skip_chunk0_train\": true, \"pretrain_dir\": \"earlier\"";
    let config = resolved(&chunked(", \"n_chunks\": 2", fields, manager)).expect("a good file");
    assert_eq!(config.chunks.reduce_time, None);
    assert!(config.skip_chunk0_train);
    assert_eq!(config.pretrain_dir, Some("/data/earlier".into()));
    let keys: Vec<&str> = config.notices.iter().flat_map(|n| &n.keys).map(String::as_str).collect();
    assert_eq!(keys, ["truncate", "pretrain_non_dp_reduce_time"]);
    for (text, expected) in [
        (chunked(", \"n_chunks\": 0", "", ""), "`n_chunks`: 0 is not in 1 to 10000"),
        (
            chunked("", "\"df2chunks\": \"time\", ", ""),
            "`df2chunks`: `time` is not known; expected `fixed_time` or `fixed_size`",
        ),
        (
            chunked("", "\"split_name\": \"v3\", ", ""),
            "`split_name`: `v3` is not known; expected `multichunk_dep_v2` or `multichunk_dep_v1`",
        ),
        (
            chunked("", "", "\"skip_chunk0_train\": true"),
            "`skip_chunk0_train`: there is no `pretrain_dir` to take weights from",
        ),
        (
            chunked("", "", "\"pretrain_non_dp_reduce_time\": 0.5"),
            "`pretrain_non_dp_reduce_time`: 0.5 is not a number of 1 or more",
        ),
    ] {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn netshare_s_own_files_load_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/seed");
    if !folder.is_dir() {
        println!("skipped: {} is not there", folder.display());
        return;
    }
    for (name, kind) in
        [("example-pcap.json", TraceKind::Packets), ("example-netflow.json", TraceKind::Netflow)]
    {
        let text = read_text(&folder.join(name)).unwrap_or_else(|error| panic!("{error}"));
        let cells = cells(&text, name, &folder).unwrap_or_else(|error| panic!("{error}"));
        let config = cells.last().expect("a model").config.clone();
        assert_eq!(cells.len(), if kind == TraceKind::Packets { 1 } else { 3 });
        assert_eq!(config.kind, kind);
        assert_eq!(config.length, TrainingLength::Epochs(40));
        assert_eq!(config.model.sample_len, 10);
        assert!(config.notices.iter().any(|n| n.keys.contains(&"extra_checkpoint_freq".into())));
    }
    let defaults = read(&folder.join("default-single_event_per_row.json"));
    let defaults = defaults.unwrap_or_else(|error| panic!("{error}"));
    assert!(resolve(&defaults, &folder).is_err(), "it names no fields");
}
