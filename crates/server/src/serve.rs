//! The role `serve`: the ledger, the API, the gateway, the worker.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_model::event::{IncidentOpened, ServerStarted};
use portcullis_model::statement::LedgerPoint;
use portcullis_model::{Refusal, RefusalKind};
use tokio::net::TcpListener;

use crate::app::App;
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
    let (app, ledger, report) = App::open(Home::new(root)).await?;
    for warning in &report.warnings {
        tracing::warn!(error.code = warning.code, "{warning}");
    }
    let listener = bind(app.config.listen, "listen").await?;
    let log = match app.config.log.listen {
        Some(address) => Some((
            bind(address, "log.listen").await?,
            Readers::open(&app.home, &app.config.log)?,
        )),
        None => None,
    };
    // Before anything is written on what may be an old copy.
    let follows = held::compare(&app).await?;
    announce(&app).await?;
    let work = tokio::spawn(worker::run(Arc::clone(&app)));
    let sync = tokio::spawn(worker::sync::run(Arc::clone(&app)));
    let keep = tokio::spawn(worker::rollout::keep(Arc::clone(&app)));
    let asking = tokio::spawn(crate::witnesses::run(Arc::clone(&app)));
    let log = log.map(|(listener, readers)| {
        tokio::spawn(crate::log::serve(Arc::clone(&app), listener, readers))
    });
    let hold = tokio::spawn({
        let app = Arc::clone(&app);
        async move {
            if follows {
                held::follow(app).await;
            }
        }
    });
    ready(&app);
    let served = axum::serve(listener, api::router(Arc::clone(&app)))
        .with_graceful_shutdown(stopped())
        .await;
    work.abort();
    sync.abort();
    keep.abort();
    hold.abort();
    asking.abort();
    if let Some(log) = log {
        log.abort();
    }
    drop(app);
    ledger.close()?;
    served.map_err(|error| {
        Refusal::unavailable("server-failed", "the server stopped").received(&error.to_string())
    })
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

/// Waits until the process is told to stop (SIGINT, SIGTERM).
pub async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
