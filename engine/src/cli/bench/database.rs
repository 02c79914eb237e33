//! A database of its own on a PostgreSQL server, for as long as a trial needs it.
//!
//! Promise: nothing of the server's other databases is read or changed. The server's own counters (of what it has written
//! and synced) are for all of it: let it be idle otherwise.

use http::Uri;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, postgres::PgConnectOptions};

use super::Failure;

/// The environment variable by which the engine gets the password.
pub(super) const PASSWORD: &str = "TIE_BENCH_PASSWORD";

/// A server, as `--postgres` names it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    options: PgConnectOptions,
    password: Option<String>,
}

/// An empty database there.
#[derive(Debug)]
pub(super) struct Database {
    server: Server,
    name: String,
}

/// What the server has done so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Bytes written to its log.
    pub wal_bytes: f64,
    /// Syncs of its log, if this version tells.
    pub syncs: Option<f64>,
}

impl Server {
    /// By an address such as `postgres://tie@localhost/postgres?host=/run/postgresql`.
    pub(super) fn at(url: &str) -> Result<Self, Failure> {
        let options = url.parse().map_err(|error: sqlx::Error| Failure::unable("--postgres", &error))?;
        let authority = url.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
        let password = authority.as_deref().and_then(password);
        Ok(Self { options, password })
    }

    /// Makes a database.
    pub(super) async fn database(&self, name: String) -> Result<Database, Failure> {
        self.order(format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")).await?;
        Ok(Database { server: self.clone(), name })
    }

    async fn order(&self, sql: String) -> Result<(), Failure> {
        let mut connection = self.connect(&self.options).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
        done.map_err(|error| Failure::unable("PostgreSQL", &error))?;
        connection.close().await.map_err(|error| Failure::unable("PostgreSQL", &error))
    }

    async fn connect(&self, options: &PgConnectOptions) -> Result<PgConnection, Failure> {
        options.connect().await.map_err(|error| Failure::unable("PostgreSQL", &error))
    }
}

/// What stands between `:` and `@`, decoded.
fn password(authority: &str) -> Option<String> {
    let (_, secret) = authority.rsplit_once('@')?.0.split_once(':')?;
    let mut bytes = Vec::new();
    let mut rest = secret.bytes();
    while let Some(byte) = rest.next() {
        let code =
            (byte == b'%').then(|| [rest.next(), rest.next()].into_iter().flatten().collect::<Vec<_>>());
        let decoded = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(&code).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
    }
    String::from_utf8(bytes).ok()
}

impl Database {
    /// The journal's table in `tie.toml`.
    pub(super) fn table(&self) -> String {
        let options = &self.server.options;
        let socket = options.get_socket().map(|path| path.display().to_string());
        let host = socket.unwrap_or_else(|| options.get_host().to_owned());
        let password = match self.server.password {
            Some(_) => format!("password = {{ env = \"{PASSWORD}\" }}\n"),
            None => String::new(),
        };
        format!(
            "[journal.postgres]\nhost = \"{host}\"\nport = {}\ndatabase = \"{}\"\nuser = \"{}\"\nsslmode = \"disable\"\n{password}",
            options.get_port(),
            self.name,
            options.get_username(),
        )
    }

    /// What the engine must have in its environment.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        self.server.password.iter().map(|password| (PASSWORD, password.clone())).collect()
    }

    /// What the server has done so far.
    pub(super) async fn work(&self) -> Result<Work, Failure> {
        let wrong = |error: sqlx::Error| Failure::unable("PostgreSQL's counters", &error);
        let mut connection = self.server.connect(&self.server.options).await?;
        let row = sqlx::query("SELECT wal_bytes::float8, to_jsonb(w)->>'wal_sync' FROM pg_stat_wal w")
            .fetch_one(&mut connection)
            .await
            .map_err(wrong)?;
        let syncs: Option<String> = row.try_get(1).map_err(wrong)?;
        Ok(Work {
            wal_bytes: row.try_get(0).map_err(wrong)?,
            syncs: syncs.and_then(|text| text.parse().ok()),
        })
    }

    /// Bytes of the database.
    pub(super) async fn size(&self) -> Result<u64, Failure> {
        let wrong = |error: sqlx::Error| Failure::unable("PostgreSQL's size", &error);
        let mut connection = self.server.connect(&self.server.options).await?;
        let row = sqlx::query("SELECT pg_database_size($1)")
            .bind(&self.name)
            .fetch_one(&mut connection)
            .await
            .map_err(wrong)?;
        Ok(row.try_get::<i64, _>(0).map_err(wrong)?.unsigned_abs())
    }

    /// Removes it, whoever still uses it.
    pub(super) async fn remove(&self) -> Result<(), Failure> {
        self.server.order(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_read_from_addresses() {
        assert_eq!(password("tie:a%40b@db:5432"), Some("a@b".to_owned()));
        assert_eq!(password("tie@db"), None);
        assert_eq!(password("db:5432"), None);
    }
}
