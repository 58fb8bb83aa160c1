//! A build for NVIDIA GPUs takes CUDA's runtime into the program, where the toolkit has it as
//! an archive: candle's kernels register themselves with it before `main`, so that a program
//! that looks for it elsewhere would not even start where there is none.

use std::path::PathBuf;

const ROOTS: [&str; 4] = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
const USUAL: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];
const WITHIN: [&str; 5] =
    ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "lib/x86_64-linux-gnu"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for name in ROOTS {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let named = ROOTS.iter().filter_map(std::env::var_os).map(PathBuf::from);
    let roots: Vec<PathBuf> = named.chain(USUAL.map(PathBuf::from)).collect();
    let mut folders = roots.iter().flat_map(|root| WITHIN.map(|within| root.join(within)));
    match folders.find(|folder| folder.join("libcudart_static.a").exists()) {
        Some(folder) => {
            println!("cargo::rustc-link-search=native={}", folder.display());
            println!("cargo::rustc-link-lib=static:-bundle=cudart_static");
            for library in ["dl", "rt", "pthread"] {
                println!("cargo::rustc-link-lib={library}");
            }
        }
        None => println!(
            "cargo::warning=no libcudart_static.a was found, so the program will start only where CUDA's \
             runtime library is; set CUDA_HOME to the toolkit's folder"
        ),
    }
}
