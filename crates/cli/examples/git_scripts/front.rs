//! What stands where the scripts expect Apache: it knows their paths, and forwards into runs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::common::Outcome;
use crate::house::{House, NAME};

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Where the scripts keep what is served, and what was asked.
struct Front {
    root: PathBuf,
    /// By directory and inode: a script may put another repository in the place of one.
    houses: tokio::sync::Mutex<BTreeMap<(PathBuf, u64), Arc<House>>>,
    log: Mutex<fs::File>,
    /// How many houses were begun.
    made: AtomicUsize,
}

/// Serves until it is told to end.
pub(crate) fn run(root: PathBuf, port: u16) -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(root.join("access.log"))?;
    let front = Arc::new(Front {
        root,
        houses: tokio::sync::Mutex::default(),
        log: Mutex::new(log),
        made: AtomicUsize::new(0),
    });
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let mut ended = signal(SignalKind::terminate())?;
        println!("ready");
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                _ = ended.recv() => break,
            };
            let front = Arc::clone(&front);
            let service = hyper::service::service_fn(move |request| {
                let front = Arc::clone(&front);
                async move { Ok::<_, Infallible>(front.logged(request).await) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
        let houses = std::mem::take(&mut *front.houses.lock().await);
        tokio::task::spawn_blocking(move || drop(houses)).await?;
        Ok(())
    })
}

impl Front {
    /// Answers, and writes a line as Apache's common format has it.
    async fn logged(&self, request: Request<Incoming>) -> Answer {
        let line = format!(
            "{} {} {:?}",
            request.method(),
            request.uri(),
            request.version()
        );
        let answer = self.answer(request).await.unwrap_or_else(|error| {
            println!("{line}: {error}");
            told(StatusCode::BAD_GATEWAY, &error.to_string())
        });
        if let Ok(mut log) = self.log.lock() {
            let status = answer.status().as_u16();
            let _ = writeln!(log, "127.0.0.1 - - [-] \"{line}\" {status} 1");
        }
        answer
    }

    async fn answer(&self, request: Request<Incoming>) -> Outcome<Answer> {
        let path = request.uri().path().to_owned();
        let query = request
            .uri()
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        if let Some(to) = redirected(&path) {
            let (status, to) = (to.0, format!("{}{query}", to.1));
            let answer = Response::builder().status(status).header("location", to);
            return Ok(answer.body(whole(""))?);
        }
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            value.to_str().ok()
        };
        let wanted = base64::engine::general_purpose::STANDARD.encode("user@host:pass@host");
        if takes_password(&path, &query)
            && header("authorization") != Some(&format!("Basic {wanted}"))
        {
            let answer = Response::builder()
                .status(401)
                .header("www-authenticate", "Basic realm=\"git-auth\"");
            return Ok(answer.body(whole(""))?);
        }
        let magic = (header("x-magic-one"), header("x-magic-two"));
        if path.starts_with("/smart_headers/") && magic != (Some("abra"), Some("cadabra")) {
            return Ok(told(StatusCode::FORBIDDEN, "without its headers"));
        }
        // These are Apache's own: endless redirects, and answers that are broken on purpose.
        let theirs = ["/loop-redir/", "/error_git_upload_pack/"];
        if theirs.iter().any(|prefix| path.starts_with(prefix)) {
            return Ok(told(StatusCode::NOT_FOUND, "not served here"));
        }
        // As Apache's configuration for these scripts says: /smart, /smart_v0 and so on; and what it
        // serves as files, which the server has words for.
        let Some((front, rest)) = path
            .split_once("/smart")
            .or_else(|| path.split_once("/dumb"))
            .and_then(|(_, rest)| rest.split_once('/'))
        else {
            return Ok(told(StatusCode::NOT_FOUND, "not served here"));
        };
        let (front, rest) = (front.to_owned(), rest.to_owned());
        let ends = ["/info/refs", "/git-upload-pack", "/git-receive-pack"];
        let part = ends.iter().find(|end| rest.ends_with(**end));
        let (name, part) = match part {
            Some(end) => (rest.trim_end_matches(end), (*end).to_owned()),
            None => match rest.split_once(".git/") {
                Some((name, part)) => (name, format!("/{part}")),
                None => return Ok(told(StatusCode::NOT_FOUND, "not served here")),
            },
        };
        let Some(directory) = self.directory(name) else {
            return Ok(told(StatusCode::NOT_FOUND, "no such repository"));
        };
        let house = self.house(directory).await?;
        let mut request = request;
        *request.uri_mut() = format!("/git/{NAME}.git{part}{query}").parse()?;
        request
            .headers_mut()
            .insert("host", HeaderValue::from_static("127.0.0.1:3128"));
        // The scripts' passwords are for Apache; a run has none, and what it sends is refused.
        request.headers_mut().remove("authorization");
        if front == "_v0" {
            request.headers_mut().remove("git-protocol");
        }
        let stream = UnixStream::connect(&house.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut answer = sender.send_request(request).await?;
        if front == "_cookies" {
            answer.headers_mut().insert(
                HeaderName::from_static("set-cookie"),
                HeaderValue::from_static("name=value"),
            );
        }
        Ok(answer.map(BodyExt::boxed))
    }

    /// The repository of this name below the document root.
    fn directory(&self, name: &str) -> Option<PathBuf> {
        let plain = Path::new(name)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        let www = self.root.join("www");
        ["", ".git", "/.git"]
            .iter()
            .map(|end| www.join(format!("{name}{end}")))
            .find(|directory| plain && directory.join("HEAD").is_file())
    }

    /// The house of a repository; the first who asks waits until it stands.
    async fn house(&self, directory: PathBuf) -> Outcome<Arc<House>> {
        let key = (directory.clone(), fs::metadata(&directory)?.ino());
        let mut houses = self.houses.lock().await;
        if let Some(house) = houses.get(&key) {
            return Ok(Arc::clone(house));
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let place = self.root.join("portcullis").join(number.to_string());
        let made = tokio::task::spawn_blocking(move || {
            House::new(&place, &directory).map_err(|error| error.to_string())
        });
        let house = Arc::new(made.await??);
        houses.insert(key, Arc::clone(&house));
        Ok(house)
    }
}

/// Where Apache would send a client, with which status.
fn redirected(path: &str) -> Option<(u16, String)> {
    let limited = path
        .strip_prefix("/smart-redir-limited/")
        .filter(|rest| rest.ends_with("/info/refs"));
    if let Some(rest) = limited {
        return Some((301, format!("/smart/{rest}")));
    }
    [
        ("/smart-redir-perm/", 301, "/smart/"),
        ("/smart-redir-temp/", 302, "/smart/"),
        ("/smart-redir-auth/", 301, "/auth/smart/"),
    ]
    .iter()
    .find_map(|(from, status, to)| {
        let rest = path.strip_prefix(from)?;
        Some((*status, format!("{to}{rest}")))
    })
}

fn takes_password(path: &str, query: &str) -> bool {
    let pushes = path.ends_with("/git-receive-pack") || query.contains("service=git-receive-pack");
    path.starts_with("/auth/")
        || (path.starts_with("/auth-push/") && path.ends_with("/git-receive-pack"))
        || (path.starts_with("/auth-fetch/") && path.ends_with("/git-upload-pack"))
        || (path.starts_with("/half-auth-complete/") && pushes)
}

fn told(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(whole(text));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("text/plain"));
    answer
}

fn whole(text: &str) -> BoxBody<Bytes, hyper::Error> {
    Full::new(Bytes::copy_from_slice(text.as_bytes()))
        .map_err(|never| match never {})
        .boxed()
}
