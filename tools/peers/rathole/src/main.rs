//! Runs the published `rathole` crate as a program; it ends with the process, so nobody sends a shutdown.
use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (_shutdown, until_shutdown) = tokio::sync::broadcast::channel(1);
    rathole::run(rathole::Cli::parse(), until_shutdown).await
}
