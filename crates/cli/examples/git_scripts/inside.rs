//! What runs inside the sandbox: a way from a socket of the workspace to the run's channel.

use std::path::Path;

use tokio::net::{TcpStream, UnixListener};

use crate::common::Outcome;

/// The launcher's channel, as every run finds it.
const CHANNEL: &str = "127.0.0.1:3128";

/// Carries each connection to `socket` to the channel, until the run ends.
pub(crate) fn relay(socket: &Path) -> Outcome<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let listener = UnixListener::bind(socket)?;
            loop {
                let (mut near, _) = listener.accept().await?;
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(CHANNEL).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        })
}
