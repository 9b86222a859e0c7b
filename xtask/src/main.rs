//! Development tasks: `cargo xtask test`.
fn main() {
    println!("cargo xtask test");
}
