//! Identity: the same thing gets the same id, in every message, on every machine, for ever.
//!
//! An id is the UUIDv5 of the resource type, the identifier's system and its value. So a repeat is harmless and
//! a replay corrects the resource it made before. Changing anything here would give every resource of every
//! record a second self: a test holds the very bytes.

use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

/// The namespace of all ids made by TIE.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x8f1d_24f4_5a3e_5e0c_9b6e_3c0d_51a7_e6b2);

/// The id of the resource that this identifier names.
pub fn id(resource_type: &str, system: &str, value: &str) -> Uuid {
    // As `Uuid::new_v5` of the parts joined by `|`, without joining them, and by the processor's own SHA-1 where it
    // has one: a message makes some twenty ids.
    let mut digest = Sha1::new_with_prefix(NAMESPACE.as_bytes());
    for part in [resource_type, "|", system, "|", value] {
        digest.update(part);
    }
    let digest: [u8; 20] = digest.finalize().into();
    let bytes = digest.first_chunk().copied().unwrap_or_default();
    Builder::from_sha1_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change() {
        assert_eq!(
            id("Patient", "https://fhir.nhs.uk/Id/nhs-number", "9991001018").to_string(),
            "a61a5010-3f8d-5041-99b8-2d281ae5b5a5"
        );
        assert_ne!(id("Patient", "a", "b"), id("Person", "a", "b"));
    }

    proptest::proptest! {
        #[test]
        fn an_id_is_the_uuid_of_its_parts(kind in "[A-Z][a-z]*", system in ".*", value in ".*") {
            let name = format!("{kind}|{system}|{value}");
            proptest::prop_assert_eq!(id(&kind, &system, &value), Uuid::new_v5(&NAMESPACE, name.as_bytes()));
        }
    }
}
