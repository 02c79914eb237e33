//! The connectors of TIE, one file or folder each. Adding one is such a file and one line in [`ALL`].

mod answers;
mod client;
mod door;
mod fhir;
mod http;
mod mllp;
mod peers;
mod web;

use tie_engine::connector::Plugin;

/// Every connector, in the order that `tie plugins` lists them.
pub const ALL: &[Plugin] = &[mllp::PLUGIN, fhir::PLUGIN, http::PLUGIN];

#[cfg(test)]
mod tests {
    use tie_engine::connector::Options;

    use super::ALL;

    /// Style rule 4: a documented example is a working one, and shows every key.
    #[test]
    fn every_example_is_built_and_shows_every_key() {
        for plugin in ALL {
            let source = plugin.source.as_ref().map(|role| {
                let options = Options::from_example(role.example).expect("an example is a table");
                let built = (role.build)(&options).map(drop);
                (role.example, (role.schema)(), built)
            });
            let destination = plugin.destination.as_ref().map(|role| {
                let options = Options::from_example(role.example).expect("an example is a table");
                let built = (role.build)(&options).map(drop);
                (role.example, (role.schema)(), built)
            });
            for (example, schema, built) in source.into_iter().chain(destination) {
                assert_eq!(built, Ok(()), "{}", plugin.name);
                let keys = schema.get("properties").and_then(|keys| keys.as_object()).expect("keys");
                for key in keys.keys() {
                    assert!(
                        example.contains(&format!("\n{key} = ")),
                        "{}: `{key}` is not shown",
                        plugin.name
                    );
                }
            }
        }
    }

    #[test]
    fn names_are_words_of_their_own() {
        let mut names: Vec<_> = ALL.iter().map(|plugin| plugin.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
