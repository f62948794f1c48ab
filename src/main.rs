//! The program: reads what it was told, runs it, and says how it ended. The only place that prints and exits.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use pengx::check::Status;
use pengx::cli::{Cli, Command};
use pengx::config::{Config, Given};
use pengx::dialects::pengx::Settings;
use pengx::error::{Error, ErrorKind};
use pengx::serve::Listening;
use pengx::{accounts, backups, check, migration};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(given) => serve(&given.into()),
        Command::Routes => {
            say(&pengx::dialects::pengx::listing().join("\n"));
            ExitCode::SUCCESS
        }
        Command::Schema { start } => schema(start.as_deref()),
        Command::Check(check) => {
            let (given, repairs) = check.split();
            look(&given, repairs)
        }
        Command::User(user) => {
            let (given, command) = user.split();
            tell(Config::load(&given).and_then(|config| accounts::user(&config, command)))
        }
        Command::Token(token) => {
            let (given, command) = token.split();
            tell(Config::load(&given).and_then(|config| accounts::token(&config, command)))
        }
        Command::Backup(backup) => {
            let (given, command) = backup.split();
            match Config::load(&given).and_then(|config| backups::run(&config, command, &mut say)) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(why) => refuse(&why),
            }
        }
        Command::MigrationReceive(place) => match Config::load(&place.into()) {
            Ok(config) => refuse(&migration::receive(&config)),
            Err(why) => refuse(&why),
        },
        Command::MigrationSend(given) => migration::send(&given).unwrap_or_else(|why| refuse(&why)),
    }
}

fn schema(start: Option<&str>) -> ExitCode {
    tell(
        pengx::dialects::pengx::schema::write(&Settings::default(), start)
            .map(|grammar| grammar.trim_end().to_owned())
            .ok_or_else(|| Error::invalid("start", "the grammar has no such name; pengx schema prints them all")),
    )
}

/// 0: all agrees; 1: something does not; 2: not everything could be looked at.
fn look(given: &Given, repairs: bool) -> ExitCode {
    let outcome = match Config::load(given).and_then(|config| check::run(&config, repairs)) {
        Ok(outcome) => outcome,
        Err(why) => {
            refuse(&why);
            return ExitCode::from(2);
        }
    };
    outcome.lines.iter().for_each(|line| say(line));
    match outcome.status {
        Status::Clean => ExitCode::SUCCESS,
        Status::Drift => ExitCode::FAILURE,
        Status::Blind => ExitCode::from(2),
    }
}

fn tell(done: Result<String, Error>) -> ExitCode {
    match done {
        Ok(text) if text.is_empty() => {}
        Ok(text) => say(&text),
        Err(why) => return refuse(&why),
    }
    ExitCode::SUCCESS
}

fn serve(given: &Given) -> ExitCode {
    let config = match Config::load(given) {
        Ok(config) => config,
        Err(why) => return refuse(&why),
    };
    start_log(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Reads are bounded by the core; this is the bound of everything else.
        .max_blocking_threads(64)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(why) => return refuse(&Error::internal("no async runtime").caused_by(why)),
    };
    let ready = |all: &[Listening]| all.iter().for_each(|listening| say(&listening.to_string()));
    match runtime.block_on(pengx::serve::serve(config, ready)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => refuse(&why),
    }
}

/// Every bad setting on a line of its own, and status 2; status 1 for what is no setting's fault.
fn refuse(why: &Error) -> ExitCode {
    let mut err = std::io::stderr().lock();
    let lines: Vec<String> = match why.kind() {
        ErrorKind::Invalid { problems } => problems.iter().map(|p| format!("{}: {}", p.field, p.why)).collect(),
        _ => vec![why.story()],
    };
    for line in lines {
        // Nobody is left to tell when this fails.
        drop(writeln!(err, "pengx: {line}"));
    }
    if matches!(why.kind(), ErrorKind::Invalid { .. }) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Who closed our standard output does not want to hear it.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

fn start_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(&config.log_level);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if config.log_json { log.json().init() } else { log.compact().init() }
}
