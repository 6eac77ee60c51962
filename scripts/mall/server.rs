//! How to reach the server.

use anyhow::Context as _;
use clap::Args;
use mysql_async::Conn;
use mysql_async::Opts;
use mysql_async::OptsBuilder;
use std::fs;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Address: mysql://user@host:port
    #[arg(long, conflicts_with = "socket")]
    url: Option<String>,
    #[arg(long)]
    socket: Option<PathBuf>,
    /// User; over the socket `root` unless named
    #[arg(long)]
    user: Option<String>,
    /// File with the password
    #[arg(long)]
    password_file: Option<PathBuf>,
    #[arg(long, default_value = "mall")]
    pub(crate) schema: String,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(crate) connections: u64,
}

impl ServerArgs {
    /// Opens a session in the mall's schema, in UTC.
    pub(crate) async fn connect(&self) -> anyhow::Result<Conn> {
        self.session(Some(&self.schema)).await
    }

    /// Opens a session outside any schema.
    pub(crate) async fn connect_outside(&self) -> anyhow::Result<Conn> {
        self.session(None).await
    }

    async fn session(&self, schema: Option<&str>) -> anyhow::Result<Conn> {
        let mut opts = match (&self.url, &self.socket) {
            (Some(url), _) => OptsBuilder::from_opts(Opts::from_url(url).context("parse --url")?),
            (None, Some(socket)) => {
                OptsBuilder::default().user(Some("root")).socket(Some(socket.display().to_string()))
            }
            (None, None) => anyhow::bail!("name the server: --url or --socket"),
        };
        if let Some(user) = &self.user {
            opts = opts.user(Some(user));
        }
        if let Some(file) = &self.password_file {
            let text = fs::read_to_string(file).with_context(|| format!("read `{}`", file.display()))?;
            opts = opts.pass(Some(text.trim_end_matches(['\r', '\n'])));
        }
        let opts = opts
            .db_name(schema)
            .prefer_socket(false)
            .init(vec!["SET NAMES utf8mb4, time_zone = '+00:00', lock_wait_timeout = 600"]);
        Conn::new(opts).await.context("connect to the server")
    }
}

/// Returns an identifier in backticks.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
