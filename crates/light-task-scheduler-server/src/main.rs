//! lts
mod bench;
use clap::Parser;
#[derive(Parser)]
enum Cli {
    Bench(bench::BenchArgs),
}
fn main() {
    let Cli::Bench(a) = Cli::parse();
    bench::run(&a).unwrap();
}
