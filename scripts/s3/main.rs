//! A throwaway S3 server on loopback: `cargo run --example s3 -- --root DIR [--port PORT]`.
//!
//! It prints `listening on 127.0.0.1:PORT` once it answers, and ends on SIGTERM or SIGINT.

mod server;

use anyhow::Context as _;
use clap::Parser;
use clap::ValueEnum;
use server::Fault;
use server::Faults;
use server::Keys;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// Serves a directory as S3 on 127.0.0.1, for tests and the quickstart.
#[derive(Debug, Parser)]
struct Args {
    /// Port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Directory that holds the buckets
    #[arg(long)]
    root: PathBuf,
    /// Bucket to create where it is missing
    #[arg(long, default_value = "bkp")]
    bucket: String,
    #[arg(long, default_value = "lab-access")]
    access_key: String,
    #[arg(long, default_value = "lab-secret-key")]
    secret_key: String,
    /// Answer every Nth request with a fault
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    fault_every: Option<u64>,
    /// What that fault is
    #[arg(long, value_enum, default_value_t = FaultKind::SlowDown)]
    fault: FaultKind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FaultKind {
    SlowDown,
    /// Ask to come back in a second
    Busy,
    Disconnect,
    Stall,
    /// Take a part of what is put, then disconnect
    CutUpload,
    /// Answer with half of what was asked for, then disconnect
    CutAnswer,
    /// Answer with half of what was asked for, then stand still
    StallAnswer,
    /// Say that it was put, and keep nothing
    Lie,
    /// Refuse as what an object's lock forbids
    Locked,
    /// Answer 200 ms later
    Delay,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let bucket = args.root.join(&args.bucket);
    fs::create_dir_all(&bucket).with_context(|| format!("create bucket `{}`", bucket.display()))?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let listener = TcpListener::bind(("127.0.0.1", args.port))
        .await
        .with_context(|| format!("listen on 127.0.0.1:{}", args.port))?;
    println!("listening on {}", listener.local_addr()?);

    let keys = [Keys { access: args.access_key.clone(), secret: args.secret_key.clone() }];
    tokio::select! {
        ended = server::serve(listener, &args.root, &keys, faults(&args)) => ended.context("serve"),
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listen for SIGINT"),
    }
}

fn faults(args: &Args) -> Faults {
    let fault = match args.fault {
        FaultKind::SlowDown => Fault::Status(503),
        FaultKind::Busy => Fault::Busy(1),
        FaultKind::Disconnect => Fault::Disconnect,
        FaultKind::Stall => Fault::Stall,
        FaultKind::CutUpload => Fault::CutUpload,
        FaultKind::CutAnswer => Fault::CutAnswer,
        FaultKind::StallAnswer => Fault::StallAnswer,
        FaultKind::Lie => Fault::Lie,
        FaultKind::Locked => Fault::Locked,
        FaultKind::Delay => Fault::Delay(Duration::from_millis(200)),
    };
    let (every, count) = (args.fault_every, AtomicU64::new(0));
    Arc::new(move |_| {
        let nth = count.fetch_add(1, Ordering::Relaxed) + 1;
        every.is_some_and(|every| nth.is_multiple_of(every)).then_some(fault)
    })
}
