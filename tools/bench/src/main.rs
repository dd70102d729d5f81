//! Load, measurement and the bare ring server.

fn main() {}
