//! The role `serve`: the ledger, the API, the gateway, the worker.

use std::future::{Future, IntoFuture as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::event::{IncidentOpened, LedgerStore, ServerStarted};
use portcullis_model::statement::LedgerPoint;
use portcullis_model::{Refusal, RefusalKind};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api::gateway::calls::Calls;
use crate::api::gateway::connection::{Entrances, Incoming};
use crate::app::{App, Role};
use crate::home::Home;
use crate::log::Readers;
use crate::{api, held, worker};

/// Serves until the process is told to stop (SIGINT, SIGTERM). `ready` is called once requests are
/// answered, with the server's URL.
///
/// # Errors
/// The home can't be opened, another server runs on it, or the address is taken.
pub async fn serve(home: Home, ready: impl FnOnce(&App)) -> Result<(), Refusal> {
    // What is started to outlive the server stands in another working directory.
    let root = std::path::absolute(home.root()).map_err(|error| {
        Refusal::unavailable(
            "home-unusable",
            "the server's directory has no absolute path",
        )
        .received(&error.to_string())
    })?;
    let home = Home::new(root);
    let mut ready = Some(ready);
    let stop = stopped();
    tokio::pin!(stop);
    // With PostgreSQL a server leads or follows, and may do both in turns.
    let mut role = Role::Lead;
    loop {
        let opened = tokio::select! {
            opened = App::open(home.clone(), role) => opened,
            () = stop.as_mut() => return Ok(()),
        };
        let (app, ledger, report) = match opened {
            Err(refusal) if refusal.code == "another-leads" => {
                tracing::info!("another server leads; this one stands by");
                role = Role::Follow;
                continue;
            }
            other => other?,
        };
        for warning in &report.warnings {
            tracing::warn!(error.code = warning.code, "{warning}");
        }
        let listener = bind(app.config.listen, "listen").await?;
        let served = turn(&app, role, listener, &mut ready, stop.as_mut()).await;
        drop(app);
        let closed = tokio::task::spawn_blocking(move || ledger.close())
            .await
            .map_err(|_| Refusal::internal("closing the ledger was cut off"))?;
        match served? {
            Turn::Stopped => return closed,
            Turn::Ended => {
                // The ledger ended by itself: the lead was lost, or may be taken.
                if let Err(refusal) = closed {
                    tracing::error!("the ledger did not end well: {refusal}");
                }
                role = Role::Lead;
            }
        }
    }
}

/// How a turn as leader or standby ended.
enum Turn {
    /// The process was told to stop.
    Stopped,
    /// The ledger ended: another process leads, or this one may.
    Ended,
}

/// How long requests that are being answered may take when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Serves in one role until it ends.
async fn turn(
    app: &Arc<App>,
    role: Role,
    listener: TcpListener,
    ready: &mut Option<impl FnOnce(&App)>,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Turn, Refusal> {
    let mut work = JoinSet::new();
    if let Some(address) = app.config.log.listen {
        let listener = bind(address, "log.listen").await?;
        let readers = Readers::open(&app.home, &app.config.log)?;
        let serving = crate::log::serve(Arc::clone(app), listener, readers);
        work.spawn(async move {
            let _ended = serving.await;
        });
    }
    if role == Role::Lead {
        // Before anything is written on what may be an old copy.
        if held::compare(app).await? {
            work.spawn(held::follow(Arc::clone(app)));
        }
        announce(app).await?;
        work.spawn(worker::run(Arc::clone(app)));
        work.spawn(worker::sync::run(Arc::clone(app)));
        work.spawn(worker::rollout::keep(Arc::clone(app)));
        work.spawn(crate::witnesses::run(Arc::clone(app)));
    }
    match ready.take() {
        Some(ready) => ready(app),
        None => tracing::info!(?role, "ready again"),
    }
    let (end, ending) = tokio::sync::oneshot::channel::<()>();
    let service = Entrances(api::Entrance::new(Arc::clone(app)));
    let serving = axum::serve(Incoming(listener), service).with_graceful_shutdown(async {
        // A sender that is gone says the same.
        let _told = ending.await;
    });
    let serving = serving.into_future();
    tokio::pin!(serving);
    let turn = tokio::select! {
        served = &mut serving => {
            return served.map(|()| Turn::Stopped).map_err(|error| {
                Refusal::unavailable("server-failed", "the server stopped")
                    .received(&error.to_string())
            });
        }
        () = stop => Turn::Stopped,
        why = app.ledger.ended() => {
            if let Some(why) = why {
                tracing::warn!(error.code = why.code, "{why}");
            }
            Turn::Ended
        }
    };
    work.shutdown().await;
    drop(end);
    if tokio::time::timeout(DRAIN_MAX, serving).await.is_err() {
        tracing::warn!("requests were cut off at the end");
    }
    Calls::flush(app).await;
    Ok(turn)
}

async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, Refusal> {
    TcpListener::bind(address).await.map_err(|error| {
        Refusal::new(
            RefusalKind::Unavailable,
            "address-taken",
            "the server can't listen",
        )
        .expected(&format!("{address} free"))
        .received(&error.to_string())
        .next(format!(
            "change `{setting}` in portcullis.toml, or stop what listens there"
        ))
    })
}

/// The entry by which the ledger says that a server took over, and what it found.
async fn announce(app: &App) -> Result<(), Refusal> {
    let checkpoint = app.ledger.checkpoint();
    let state = app.state();
    let body = ServerStarted {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        fold_version: portcullis_flow::state::FOLD_VERSION,
        found: LedgerPoint {
            origin: state.genesis()?.origin.clone(),
            size: checkpoint.size,
            root: checkpoint.root,
        },
        store: Some(match app.config.store.url {
            Some(_) => LedgerStore::Postgresql,
            None => LedgerStore::Sqlite,
        }),
    };
    match worker::record(app, body).await {
        Ok(()) => Ok(()),
        // A full disk must not keep a server from halting and rolling back.
        Err(refusal) if refusal.kind == RefusalKind::Unavailable => {
            tracing::error!(
                error.code = refusal.code,
                "the ledger can't be written; only what takes authority away works: {refusal}"
            );
            let incident = IncidentOpened {
                code: "ledger-unwritable".to_owned(),
                about: None,
                facts: Default::default(),
            };
            if let Err(refusal) = worker::record(app, incident).await {
                tracing::error!("not even the reserve can be written: {refusal}");
            }
            Ok(())
        }
        Err(refusal) => Err(refusal),
    }
}

/// Waits until the process is told to stop (SIGINT, SIGTERM); it listens from this call on, not
/// only once it is waited for.
pub fn stopped() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    async move {
        let Ok((mut interrupt, mut terminate)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
