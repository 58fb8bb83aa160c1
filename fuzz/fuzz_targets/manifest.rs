//! A manifest, in a bundle that is otherwise as it should be; then what is done
//! with a bundle before its graphs are run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ns_model_format::{Bundle, Layout, Manifest};
use ns_runtime::describe::Description;
use ns_runtime::{GenerateOptions, PacketOptions, PacketRender, Render, RowRender};

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return };
    let files = manifest.files.keys().take(20).map(|name| (name.clone(), Vec::new())).collect();
    let Ok(bundle) = Bundle::new(manifest, files) else { return };
    let Ok(bytes) = bundle.to_bytes() else { return };
    // Encoders get their vocabularies only when they are read.
    let Ok(bundle) = Bundle::from_bytes(&bytes) else { return };
    let manifest = bundle.manifest();
    let schema = &manifest.schema;
    let _ = Description::new(&bundle).to_text();
    let mut rows = RowRender::new(schema, manifest.timeline.origin_ns);
    let mut packets = PacketRender::new(schema, PacketOptions::default()).ok();
    for output in [0.0, 1.0, -1.0, f32::NAN, f32::INFINITY] {
        let decode = |fields: &[ns_model_format::Field]| {
            let values = fields.iter().map(|field| {
                let layout = Layout { segments: field.codec.segments() };
                field.codec.decode(&vec![output; layout.folded_dim()])
            });
            values.collect::<Vec<_>>()
        };
        let (attributes, measurements) = (decode(&schema.attributes), decode(&schema.measurements));
        let mut flow = rows.begin_flow(0, &attributes);
        let _ = rows.record(&mut flow, u64::MAX, &measurements);
        if let Some(packets) = &mut packets {
            let mut flow = packets.begin_flow(0, &attributes);
            let _ = packets.record(&mut flow, 0, &measurements);
            let _ = packets.record(&mut flow, u64::MAX, &measurements);
        }
    }
    for uniform in [0.0, 0.5, 1.0] {
        let _ = manifest.timeline.arrivals.gap_ns(u64::MAX, uniform);
    }
    for field in schema.attributes.iter().chain(&schema.measurements).take(8) {
        let condition = format!("{}=1", field.name).parse();
        let mut options = GenerateOptions::default();
        options.conditions.extend(condition);
        let _ = options.check_against(&bundle);
    }
});
