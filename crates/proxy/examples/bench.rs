//! Requests per second and latency of the proxy beside nginx, in one run on the same cores.
//!
//! `cargo run --release -p portcullis-proxy --example bench -- [SECONDS] [CONNECTIONS]`, after
//! `cargo build --release -p portcullis-proxy`. Without nginx in PATH only our own figures and the
//! ratio to the bare origin are printed. What is measured, and how, is told in `docs/proxy.md`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_proxy::{Backend, ProxyControl, Routing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const REQUEST: &[u8] =
    b"GET /item/42 HTTP/1.1\r\nhost: bench.test\r\naccept: */*\r\nuser-agent: bench\r\n\r\n";
const BODY_BYTES: usize = 1_024;
/// Largest response that the client reads, head and body, in bytes.
const RESPONSE_MAX_BYTES: usize = 8 * 1_024;
const WARM_UP: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let connections: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let length = Duration::from_secs(seconds);
    let dir = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    println!("{}, {connections} connections, {seconds} s each", machine());

    let origin = origin().await?;
    let mut peers = vec![Peer {
        name: "origin, no proxy",
        address: origin,
        process: None,
    }];
    peers.push(ours(&dir, origin).await?);
    match nginx(&dir, origin).await {
        Ok(peer) => peers.push(peer),
        Err(error) => println!("nginx is left out: {error}"),
    }

    let mut full = Vec::new();
    for peer in &peers {
        load(peer.address, connections, WARM_UP, None).await?;
        let figures = load(peer.address, connections, length, None).await?;
        println!("{:<18} full load  {figures}", peer.name);
        full.push(figures);
    }
    let slowest = full
        .iter()
        .map(|figures| figures.per_second)
        .fold(f64::INFINITY, f64::min);
    let mut half = Vec::new();
    for peer in &peers {
        let figures = load(peer.address, connections, length, Some(slowest / 2.0)).await?;
        println!("{:<18} half load  {figures}", peer.name);
        half.push(figures);
    }
    if let ([bare, proxy, rest @ ..], [bare_half, proxy_half, rest_half @ ..]) =
        (full.as_slice(), half.as_slice())
    {
        let ratio = |of: &Figures| proxy.per_second / of.per_second;
        println!("ratio to the bare origin: {:.2}", ratio(bare));
        println!(
            "added p99 at half load: {} us",
            proxy_half.p99_us.saturating_sub(bare_half.p99_us)
        );
        if let ([nginx], [nginx_half]) = (rest, rest_half) {
            println!("ratio to nginx: {:.2} (budget 0.60)", ratio(nginx));
            println!(
                "nginx's added p99 at half load: {} us",
                nginx_half.p99_us.saturating_sub(bare_half.p99_us)
            );
        }
    }
    drop(peers);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Something that answers, and its process if it has one of its own.
struct Peer {
    name: &'static str,
    address: SocketAddr,
    process: Option<Child>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // SIGKILL would leave nginx's workers behind; SIGTERM lets it end them.
            let id = process.id().to_string();
            drop(Command::new("kill").arg(id).status());
            drop(process.wait());
        }
    }
}

async fn ours(dir: &Path, origin: SocketAddr) -> Outcome<Peer> {
    // target/release/examples/bench → target/release/portcullis-proxy
    let binary: PathBuf = std::env::current_exe()?
        .ancestors()
        .nth(2)
        .ok_or("no build directory")?
        .join("portcullis-proxy");
    let address = free_address()?;
    let socket = dir.join("control.sock");
    let file = dir.join("proxy.toml");
    let text = format!(
        "listen = {:?}\ncontrol_socket = {socket:?}\nstate_file = {:?}\n",
        address.to_string(),
        dir.join("state")
    );
    std::fs::write(&file, text)?;
    let process = Command::new(&binary)
        .arg(&file)
        .env("RUST_LOG", "warn")
        .spawn()
        .map_err(|error| format!("{}: {error}; build it first", binary.display()))?;
    let peer = Peer {
        name: "portcullis-proxy",
        address,
        process: Some(process),
    };
    answers(address).await?;
    // Both arms are the same origin: the assignment is paid for, and nothing else differs.
    let control = ProxyControl::new(socket);
    let routing = Routing {
        epoch: 1,
        seed: 1,
        stable: Backend::Tcp(origin),
        canary: Some(Backend::Tcp(origin)),
        weight_per_mille: 100,
        heartbeat_ttl_ms: 600_000,
        sticky: None,
        mark_responses: false,
    };
    control.configure(&routing).await?;
    Ok(peer)
}

async fn nginx(dir: &Path, origin: SocketAddr) -> Outcome<Peer> {
    let address = free_address()?;
    let workers = std::thread::available_parallelism()?;
    let file = dir.join("nginx.conf");
    let text = format!(
        "worker_processes {workers};\ndaemon off;\nuser root;\npid {dir}/nginx.pid;\n\
         error_log {dir}/nginx.log;\nevents {{ worker_connections 4096; }}\n\
         http {{\n access_log off;\n keepalive_requests 1000000000;\n\
         client_body_temp_path {dir}/a;\n proxy_temp_path {dir}/b;\n fastcgi_temp_path {dir}/c;\n\
         uwsgi_temp_path {dir}/d;\n scgi_temp_path {dir}/e;\n\
         upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://origin;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr; }} }}\n}}\n",
        dir = dir.display()
    );
    std::fs::write(&file, text)?;
    let process = Command::new("nginx")
        .arg("-c")
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()?;
    let peer = Peer {
        name: "nginx",
        address,
        process: Some(process),
    };
    answers(address).await?;
    Ok(peer)
}

/// A release that does nothing but answer.
async fn origin() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY_BYTES}\r\n\r\n{}",
        "x".repeat(BODY_BYTES)
    );
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, response.clone()));
        }
    });
    Ok(address)
}

async fn answer(mut stream: TcpStream, response: String) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4_096);
    loop {
        while !buffer.windows(4).any(|four| four == b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        // One request at a time per connection, without a body: all that came is this one.
        buffer.clear();
        stream.write_all(response.as_bytes()).await?;
    }
}

struct Figures {
    per_second: f64,
    p50_us: u64,
    p99_us: u64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>8.0} requests/s, p50 {:>6} us, p99 {:>6} us",
            self.per_second, self.p50_us, self.p99_us
        )
    }
}

/// Loads `address` for `length`: each connection as fast as it gets answers, or all together at
/// `per_second`, each request timed from the moment when it was due.
async fn load(
    address: SocketAddr,
    connections: usize,
    length: Duration,
    per_second: Option<f64>,
) -> Outcome<Figures> {
    let began = Instant::now();
    let gap = per_second.map(|rate| Duration::from_secs_f64(connections as f64 / rate));
    let mut clients = Vec::with_capacity(connections);
    for number in 0..connections {
        // Paced clients begin one after the other, not all at once.
        let offset = gap.map_or(Duration::ZERO, |gap| {
            gap.mul_f64(number as f64 / connections as f64)
        });
        clients.push(tokio::spawn(client(address, began, length, gap, offset)));
    }
    let mut latencies_us = Vec::new();
    for client in clients {
        latencies_us.extend(client.await??);
    }
    let took = began.elapsed();
    latencies_us.sort_unstable();
    let at = |share: f64| {
        let index = (latencies_us.len() as f64 * share) as usize;
        latencies_us.get(index).copied().unwrap_or_default()
    };
    Ok(Figures {
        per_second: latencies_us.len() as f64 / took.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
    })
}

async fn client(
    address: SocketAddr,
    began: Instant,
    length: Duration,
    gap: Option<Duration>,
    offset: Duration,
) -> Outcome<Vec<u64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies_us = Vec::new();
    let mut buffer = Vec::with_capacity(RESPONSE_MAX_BYTES);
    let mut due = began + offset;
    while began.elapsed() < length {
        if let Some(gap) = gap {
            // A request that is late because the one before took long counts from when it was
            // due; the timer's own millisecond does not count.
            let sent = if due <= Instant::now() {
                due
            } else {
                tokio::time::sleep_until(due.into()).await;
                Instant::now()
            };
            exchange(&mut stream, &mut buffer).await?;
            latencies_us.push(u64::try_from(sent.elapsed().as_micros())?);
            due += gap;
        } else {
            let sent = Instant::now();
            exchange(&mut stream, &mut buffer).await?;
            latencies_us.push(u64::try_from(sent.elapsed().as_micros())?);
        }
    }
    Ok(latencies_us)
}

async fn exchange(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Outcome<()> {
    buffer.clear();
    stream.write_all(REQUEST).await?;
    let head_bytes = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() >= RESPONSE_MAX_BYTES || stream.read_buf(buffer).await? == 0 {
            return Err("the response ended in its head".into());
        }
    };
    if !buffer.starts_with(b"HTTP/1.1 200") {
        return Err(String::from_utf8_lossy(buffer).into_owned().into());
    }
    while buffer.len() < head_bytes + BODY_BYTES {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the response ended in its body".into());
        }
    }
    Ok(())
}

fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

async fn answers(address: SocketAddr) -> Outcome<()> {
    for _ in 0..250 {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("nothing answers on {address}").into())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(": ")?.1.to_owned())
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    format!("{model}, {cores} cores")
}
