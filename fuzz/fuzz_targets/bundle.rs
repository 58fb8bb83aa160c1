//! A bundle's bytes. The digest at the end is made right, else nothing behind it
//! would ever be reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ns_model_format::Bundle;
use ns_model_format::bundle::hex_sha256;

const COMMENT: &[u8] = b"sha256:";

fuzz_target!(|bytes: &[u8]| {
    let _ = Bundle::from_bytes(bytes);
    let mut signed = bytes.to_vec();
    let body = signed.len().saturating_sub(COMMENT.len() + 64);
    signed.truncate(body);
    let digest = hex_sha256(&signed);
    signed.extend_from_slice(COMMENT);
    signed.extend_from_slice(digest.as_bytes());
    if let Ok(bundle) = Bundle::from_bytes(&signed) {
        let again = bundle.to_bytes().expect("a bundle that was read can be written");
        assert!(Bundle::from_bytes(&again).expect("and read again") == bundle);
    }
});
