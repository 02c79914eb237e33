//! Retention by the configuration that is live: a pass now and then, as long as the engine runs.

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
/// What is younger is never removed: a repeat must be known as one.
const AT_LEAST: Duration = Duration::from_secs(24 * 3600);

/// Removes what is old enough until it is dropped, or the journal is closed.
pub async fn keep(parts: Parts) {
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        let live = parts.pipeline.live();
        let policy = policy(&live.config, &live.routes);
        drop(live);
        if !policy.is_for_ever() {
            match parts.journal.retain(&policy, parts.clock.now()).await {
                Ok(_) => {}
                Err(JournalError::Closed(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, "retention could not look at the journal; it tries again")
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
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
        at_least: AT_LEAST,
    }
}
