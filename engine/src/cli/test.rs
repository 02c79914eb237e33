//! `tie test`: do the routes do what their own tests say?

use serde_json::json;

use super::{Exit, Place, complain, report, say};
use crate::{connector::Plugin, revision::Revision, routing::Route};

/// Run the tests that the routes carry.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The routes to test; all of them if none is named.
    #[arg(value_name = "ROUTE")]
    routes: Vec<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Exit {
    let snapshot = place.snapshot();
    let built = match &snapshot {
        Ok(snapshot) => Revision::build(snapshot, plugins),
        Err(problems) => Err(problems.clone()),
    };
    let revision = match built {
        Ok(revision) => revision,
        Err(problems) => {
            if arguments.json {
                say(format_args!("{}\n", json!({ "ok": false, "problems": problems })));
            } else {
                complain(report::rendered(&problems, snapshot.as_ref().ok(), report::wants_colour()));
            }
            return Exit::Wrong;
        }
    };
    if let Some(unknown) = arguments.routes.iter().find(|name| revision.routes.get(name).is_none()) {
        complain(format_args!("tie: there is no route `{unknown}`"));
        return Exit::Usage;
    }
    let wanted = |route: &&Route| arguments.routes.is_empty() || arguments.routes.contains(&route.name);
    let results: Vec<_> =
        revision.routes.iter().filter(wanted).map(|route| (route, revision.run_tests_of(route))).collect();
    let tests: usize = results.iter().map(|(route, _)| route.tests.len()).sum();
    let failed: usize = results.iter().map(|(_, failures)| failures.len()).sum();
    if arguments.json {
        let failures: Vec<_> = results.iter().flat_map(|(_, failures)| failures).collect();
        let answer =
            json!({ "ok": failed == 0, "revision": revision.id, "tests": tests, "failures": failures });
        say(format_args!("{answer}\n"));
    } else {
        for (route, failures) in &results {
            let word = if failures.is_empty() { "ok    " } else { "FAILED" };
            say(format_args!("{word} {} ({} tests)\n", route.name, route.tests.len()));
            for failure in failures {
                say(format_args!("\n{}: {}: {}\n", failure.place, failure.message.display(), failure.what));
                say(format_args!("{}\n", failure.difference));
            }
        }
        say(format_args!("{} of {tests} tests hold.\n", tests - failed));
    }
    if failed == 0 { Exit::Well } else { Exit::Wrong }
}
