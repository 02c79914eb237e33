//! What is kept no longer than needed: messages by the configuration that is live, former orders as long as somebody
//! waits by them. A pass now and then, as long as the engine runs.

use std::time::Duration;

use super::parts::Parts;
use crate::{
    config::{Ages, Config},
    journal::{self, JournalError, Retention},
    routing::Routes,
};

/// Between two passes.
const EVERY: Duration = Duration::from_secs(600);
/// The first pass waits until the backlog of a start is being worked off.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// What is younger is never removed, nor what is inside a listener's window for repeats: they must be known as such.
const AT_LEAST: Duration = Duration::from_secs(24 * 3600);

/// Removes what is old enough until it is dropped, or the journal is closed.
pub async fn keep(parts: Parts) {
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        let live = parts.pipeline.live();
        let policy = policy(&live.config, &live.routes);
        drop(live);
        match pass(&parts, &policy).await {
            Ok(()) => {}
            Err(JournalError::Closed(_)) => return,
            Err(error) => tracing::warn!(%error, "retention could not look at the journal; it tries again"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn pass(parts: &Parts, policy: &Retention) -> Result<(), JournalError> {
    parts.pipeline.forget_former_orders(&parts.journal).await?;
    if !policy.is_for_ever() {
        parts.journal.retain(policy, parts.clock.now()).await?;
    }
    Ok(())
}

/// What the instance says, and each route for its own messages.
fn policy(config: &Config, routes: &Routes) -> Retention {
    let said = &config.retention;
    let ages = |ages: Ages| journal::Ages { bodies: ages.bodies, messages: ages.messages };
    let of_route = |route: &crate::routing::Route| {
        let own = journal::Ages { bodies: route.retention.bodies, messages: route.retention.messages };
        let default = ages(said.ages);
        let both = journal::Ages {
            bodies: own.bodies.or(default.bodies),
            messages: own.messages.or(default.messages),
        };
        (both != default).then(|| (route.name.clone(), both))
    };
    Retention {
        default: ages(said.ages),
        routes: routes.iter().filter_map(of_route).collect(),
        dead: said.dead_letters,
        quarantine: said.quarantine,
        most_bytes: said.size_bytes,
        at_least: AT_LEAST.max(config.longest_window()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::{
        connector::{Plugin, Role, Source},
        routing::Known,
    };

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn policy_of(instance: &str, route: &str) -> Retention {
        let text = format!("environment = 'test'\n[journal]\npath = 'journal'\n{instance}");
        let config = Config::parse(Path::new("tie.toml"), text.into(), &[]).unwrap();
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        let known = Known {
            listeners: Some(&names("a")),
            destinations: Some(&names("b")),
            mappings: Some(&names("m")),
        };
        let text = format!("from = 'a'\nmap = 'm'\n{route}\n[[to]]\ndestination = 'b'\n");
        let files = BTreeMap::from([(PathBuf::from("routes/adt.toml"), text.into())]);
        policy(&config, &Routes::parse(&files, &known).unwrap())
    }

    #[test]
    fn the_instance_speaks_for_routes_that_say_nothing() {
        assert!(policy_of("", "").is_for_ever());
        let said = "[journal.retention]\nbodies = '7d'\nmessages = '30d'\nquarantine = '9d'\nsize = '5GB'\n";
        let policy = policy_of(said, "retention = { bodies = '2d' }");
        assert_eq!(policy.default, journal::Ages { bodies: Some(7 * DAY), messages: Some(30 * DAY) });
        assert_eq!(policy.routes["adt"], journal::Ages { bodies: Some(2 * DAY), messages: Some(30 * DAY) });
        assert_eq!(
            (policy.quarantine, policy.dead, policy.most_bytes),
            (Some(9 * DAY), None, Some(5_000_000_000))
        );
        assert_eq!(policy.at_least, DAY);
        assert_eq!(policy_of(said, "").routes.len(), 0);
    }

    #[test]
    fn p3_nothing_inside_the_window_for_repeats_is_removed() {
        let source = Role::<Box<dyn Source>> {
            example: "",
            schema: || schemars::schema_for!(String),
            build: |_| Err(Vec::new()),
        };
        let plugin =
            Plugin { name: "mllp", about: "", source: Some(source), destination: None, answers: &[] };
        let with = |listeners: &str| {
            let text = format!("environment = 'test'\njournal.path = 'journal'\n{listeners}");
            let config = Config::parse(Path::new("tie.toml"), text.into(), std::slice::from_ref(&plugin));
            policy(&config.unwrap(), &Routes::default()).at_least
        };
        assert_eq!(with("listener.a = { kind = 'mllp', duplicates = '1h' }"), DAY);
        let two = "listener.a = { kind = 'mllp', duplicates = '9d' }\nlistener.b = { kind = 'mllp' }";
        assert_eq!(with(two), 9 * DAY);
    }
}
