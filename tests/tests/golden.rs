//! Bundles of every released format stay readable.

use std::path::Path;
use std::sync::Arc;

use ns_model_format::Bundle;
use ns_runtime::describe::Description;
use ns_runtime::{GenerateOptions, Generator, RowRender};
use ns_tests::repository;

#[test]
fn bundles_of_format_1_are_described_and_generate() {
    for (name, columns) in [("packets-1.ns", 12), ("netflow-1.ns", 10)] {
        let path = repository().join("tests/golden").join(name);
        let bundle = Arc::new(Bundle::open(&path).expect("a bundle of format 1"));
        let description = Description::new(&bundle);
        assert_eq!((description.format, description.chunks), (1, 1), "{name}");
        assert_eq!(description.columns.len(), columns, "{name}");
        assert!(description.to_text().contains("1 chunk(s)"), "{name}");
        let rows = rows(&bundle, 300);
        let flows = rows.iter().filter(|(_, record, _)| *record == 0).count();
        assert_eq!(flows, 300, "{name}");
        assert!(rows.iter().all(|(_, _, row)| row.matches(',').count() + 1 == columns), "{name}");
        // Written again it is of the newest format, and generates the same.
        let folder = tempfile::tempdir().expect("a folder");
        let again = written_again(&bundle, &folder.path().join("again.ns"));
        assert!(again.manifest().format > 1);
        assert_eq!(self::rows(&again, 300), rows, "{name}");
    }
}

fn written_again(bundle: &Bundle, path: &Path) -> Arc<Bundle> {
    let manifest = bundle.manifest().clone();
    let file = |name: &String| (name.clone(), bundle.file(name).unwrap_or_default().to_vec());
    let files = manifest.files.keys().map(file).collect();
    Bundle::new(manifest, files).expect("parts that fit").write(path).expect("written");
    Arc::new(Bundle::open(path).expect("a bundle"))
}

/// Flow, record and CSV line of everything in so many flows.
fn rows(bundle: &Arc<Bundle>, flows: u64) -> Vec<(u64, u32, Box<str>)> {
    let manifest = bundle.manifest();
    let mut options = GenerateOptions::default();
    options.seed = 7;
    options.flows = Some(flows);
    let render = RowRender::new(&manifest.schema, manifest.timeline.origin_ns);
    let generator = Generator::open(Arc::clone(bundle), options).expect("graphs that run");
    let stream = generator.stream(render).expect("a stream");
    stream
        .map(|event| event.expect("an event"))
        .map(|event| (event.flow, event.record, event.item))
        .collect()
}
