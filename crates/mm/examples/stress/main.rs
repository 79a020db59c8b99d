//! Everything at once, for a long time: threads fault, store, load, pin, fork, zap, guard, split, collapse, swap out, move and revoke on the same memory, and grow stacks, at random.
//!
//! ```text
//! cargo run --release -p fastgup-mm --example stress -- --ops 100000000
//! ```
//!
//! Every page has a word for each thread. A thread knows what its words must hold, whatever the others do to the page meanwhile, and checks it at every load. At the end every
//! count must be exact, and every frame, table and place on swap must be back.

mod contents;
mod kernel;
mod progress;
mod random;
mod tally;
mod worker;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

use kernel::Kernel;
use tally::Tally;

#[derive(Parser)]
#[command(
    about = "Faults, forks, zaps, GUP, splits, collapses and revokes at random on threads; checks contents and counts"
)]
struct Arguments {
    /// How many operations all threads do together
    #[arg(long, visible_alias = "operations", default_value_t = 10_000_000)]
    ops: u64,
    /// How many threads
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    threads: u32,
    /// Another number, another run
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end_at_the_first_panic(&arguments);
    let started = Instant::now();
    let kernel = match Kernel::build(arguments.threads) {
        Ok(kernel) => kernel,
        Err(error) => {
            eprintln!("no memory for the machine: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.threads)
            .map(|number| {
                let (kernel, done) = (&kernel, &done);
                scope.spawn(move || worker::run(kernel, number, arguments.seed, arguments.ops, done))
            })
            .collect();
        let progress = scope.spawn(|| progress::show(&done, arguments.ops, &is_over));
        for worker in workers {
            tally.add(&worker.join().expect("a panic ends the program"));
        }
        is_over.store(true, Ordering::Relaxed);
        progress.thread().unpark();
    });
    println!("{tally}");
    println!(
        "{} operations by {} threads with seed {} in {:.1} s",
        done.load(Ordering::Relaxed).min(arguments.ops),
        arguments.threads,
        arguments.seed,
        started.elapsed().as_secs_f64()
    );
    match kernel.close() {
        Ok(()) => {
            println!(
                "every load found what its thread had stored; every frame and every table is back, with its counts at zero"
            );
            ExitCode::SUCCESS
        }
        Err(leaks) => {
            eprintln!("{leaks}");
            ExitCode::FAILURE
        }
    }
}

/// Whatever a thread finds wrong ends the run at once: the other threads may be waiting for that thread, and every later finding may be a consequence.
fn end_at_the_first_panic(arguments: &Arguments) {
    let Arguments { ops, threads, seed } = *arguments;
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        eprintln!("the run was --ops {ops} --threads {threads} --seed {seed}");
        std::process::exit(1);
    }));
}
