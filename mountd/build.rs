//! Writes the types and services of `proto/csi.proto` as Rust.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/csi.proto");
    let files = protox::compile(["proto/csi.proto"], ["proto"])?;
    Ok(tonic_prost_build::configure().compile_fds(files)?)
}
