//! What the way out costs, beside plain proxies and beside no proxy at all, in one run.
//!
//! `cargo build --release -p portcullis-cli`, then
//! `cargo run --release -p portcullis-cli --example egress -- [SECONDS] [CONNECTIONS] [gateway]`;
//! with `gateway`, that way alone is measured.
//!
//! | way | what is on it |
//! |---|---|
//! | none | the load, the host |
//! | tinyproxy, squid | the same with the proxy between them, as packaged by Debian |
//! | gateway | the server as the launcher reaches it: proof of possession, policy, durable entry, the request and its answer |
//! | sandbox | the whole way: the load runs inside a sandbox and knows of no proxy |
//!
//! Load, host, launcher, server and proxy share the machine's cores, so beside the rate stands the
//! processor time of the server for each request. Load and host are a thread each that waits for all
//! of its connections at once, as load generators do: one thread for each connection would have the
//! server pay for waking it with every answer. All requests are small and answered at once: the
//! figures are those of the way, not of the hosts. As root, for the sandbox.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../common/mod.rs"]
mod common;
mod house;
mod launcher;
mod load;
mod many;

use std::time::Duration;

use common::Outcome;
use house::House;
use load::{Figures, Way};
use many::Host;

/// A name that leads to the host of this benchmark.
const NAME: &str = "bench.test";
/// Requests one after the other whose times are compared.
const SERIAL: usize = 2_000;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Started again inside the sandbox, it is the load.
    if let [mode, host, connections, seconds] = arguments.as_slice()
        && mode == "inside"
    {
        return inside(host, connections.parse()?, seconds.parse()?);
    }
    let number = |at: usize, usual: u64| -> Outcome<u64> {
        Ok(arguments.get(at).map_or(Ok(usual), |text| text.parse())?)
    };
    let (seconds, connections) = (number(0, 10)?, usize::try_from(number(1, 128)?)?);
    let time = Duration::from_secs(seconds);
    println!("{}", common::machine());
    let place = tempfile::Builder::new().prefix("egress-bench").tempdir()?;
    let host = Host::start()?;
    let house = House::prepare(place.path(), host.port)?;
    println!(
        "fdatasync of 512 bytes: median {:.3} ms",
        house::sync_ms(place.path())?
    );
    println!(
        "\n{:<10} {:>12} {:>11} {:>11} {:>11} {:>11} {:>16}",
        "way", "requests/s", "cold ms", "p50 ms", "p99 ms", "p50 added", "server µs/req"
    );
    let plain = load::measure(&Way::direct(host.port), connections, time, SERIAL)?;
    print("none", &plain, &plain, None);
    let alone = arguments.get(2).is_some_and(|way| way == "gateway");
    for proxy in ["tinyproxy", "squid"].into_iter().filter(|_| !alone) {
        match house::proxy(proxy, place.path()) {
            Ok((port, running)) => {
                let way = Way::proxy(port, host.port);
                print(
                    proxy,
                    &load::measure(&way, connections, time, SERIAL)?,
                    &plain,
                    None,
                );
                drop(running);
            }
            Err(error) => println!("{proxy:<10} {error}"),
        }
    }
    let run = launcher::Run::start(&house, host.port)?;
    let before = house.server_time_us()?;
    let (figures, requests) = run.measure(connections, time, SERIAL)?;
    let each = (house.server_time_us()? - before) / requests.max(1) as f64;
    print("gateway", &figures, &plain, Some(each));
    println!(
        "           the server alone would fill two cores at {:.0} decided and forwarded requests/s",
        2e6 / each
    );
    flooded(&house, &run)?;
    if alone {
        return Ok(());
    }
    let before = house.server_time_us()?;
    let (figures, requests) = house.inside(host.port, connections, seconds)?;
    let each = (house.server_time_us()? - before) / requests.max(1) as f64;
    print("sandbox", &figures, &plain, Some(each));
    breaker(&house, &host, connections)
}

/// The load by itself, told in one line.
fn inside(host: &str, connections: usize, seconds: u64) -> Outcome<()> {
    let address = std::net::ToSocketAddrs::to_socket_addrs(host)?
        .next()
        .ok_or("the name has no address")?;
    let way = Way {
        address,
        request: load::request("/", host, ""),
    };
    let figures = load::measure(&way, connections, Duration::from_secs(seconds), SERIAL)?;
    println!("figures {}", figures.line());
    Ok(())
}

fn print(way: &str, figures: &Figures, plain: &Figures, server_us: Option<f64>) {
    println!(
        "{way:<10} {:>12.0} {:>11.3} {:>11.3} {:>11.3} {:>11.3} {:>16}",
        figures.rate,
        figures.cold_ms,
        figures.p50_ms,
        figures.p99_ms,
        figures.p50_ms - plain.p50_ms,
        server_us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"))
    );
}

/// What others wait for while one run sends as much as it can that has to be looked at.
fn flooded(house: &House, run: &launcher::Run) -> Outcome<()> {
    const SENDERS: usize = 8;
    const TIME: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(5);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], house.port()));
    let asks = load::request("/v1/status", &format!("127.0.0.1:{}", house.port()), "");
    let mut quiet = load::now_and_then(address, &asks, TIME, PAUSE)?;
    let (mut flooded, bodies) =
        run.flood(SENDERS, || load::now_and_then(address, &asks, TIME, PAUSE))?;
    println!("\nthe server's status, every {PAUSE:?} for {TIME:?} (ms): p50, p99, longest");
    for (when, times) in [("quiet", &mut quiet), ("flooded", &mut flooded)] {
        times.sort_by(f64::total_cmp);
        let [p50, p99, longest] = [50, 99, 100].map(|percent| load::at(times, percent));
        println!("{when:<10} {p50:>9.3} {p99:>9.3} {longest:>9.3}");
    }
    println!(
        "           while one run had {bodies} bodies of 8 MB looked at, from {SENDERS} connections"
    );
    Ok(())
}

/// How long after a breaker was tripped the last request reached the host.
fn breaker(house: &House, host: &Host, connections: usize) -> Outcome<()> {
    println!("\nbreaker, under load of {connections} connections from a sandbox:");
    for probe in 0..house::PROBES {
        let running = house.start_inside(probe, host.port, connections)?;
        let from = host.seen();
        // Past the requests that come one after the other.
        let loaded = from + SERIAL as u64 + 2_000;
        load::wait("the load reaches the host", || host.seen() > loaded)?;
        let (asked_ms, recorded_ms) = house.trip(probe)?;
        // Nothing may come any more; half a second of silence is enough to see that.
        std::thread::sleep(Duration::from_millis(500));
        let last = host.last_ms();
        println!(
            "the last request reached the host {} ms after the trip was recorded, {} ms after the command was started",
            last - recorded_ms,
            last - asked_ms
        );
        drop(running);
    }
    Ok(())
}
