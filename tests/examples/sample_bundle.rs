//! Writes a packet model with random weights: `sample_bundle FILE [SEED]`.

use ns_tests::{SampleModel, sample_bundle};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("usage: sample_bundle FILE [SEED]");
    let seed = arguments.next().map_or(1, |seed| seed.parse().expect("a number"));
    let model = SampleModel { seed, ..SampleModel::default() };
    sample_bundle(model).write(path.as_ref()).expect("a writable path");
}
