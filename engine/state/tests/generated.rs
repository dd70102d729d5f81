//! The committed `src/meta/generated.rs` is what protobuf-codegen makes of `src/meta/proto/meta.proto`, so that builds need no generator.
//!
//! After a change of the schema: `MILLRACE_REGENERATE=1 cargo test -p millrace-state --test generated`, then commit both files.

#![expect(clippy::disallowed_methods, reason = "a test reads files, its environment and the clock where the crate may not")]

use std::path::Path;

#[test]
fn committed_file_is_what_the_generator_makes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/meta/generated.rs");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("meta-generated");
    std::fs::create_dir_all(&out).unwrap();
    protobuf_codegen::Codegen::new()
        .pure()
        .include(root.join("src/meta/proto"))
        .input(root.join("src/meta/proto/meta.proto"))
        .out_dir(&out)
        .customize(protobuf_codegen::Customize::default().lite_runtime(true))
        .run()
        .unwrap();
    let made = std::fs::read_to_string(out.join("meta.rs")).unwrap();
    if std::env::var_os("MILLRACE_REGENERATE").is_some() {
        std::fs::write(&committed, &made).unwrap();
    }
    assert!(std::fs::read_to_string(&committed).unwrap() == made, "run this test with MILLRACE_REGENERATE=1 and commit the file");
}
