//! Outputs packed a moment ago: destinations of one route that get the same are given the same packed bytes.
//!
//! Promise:  what is given back was packed from these very bytes: they lie at the same place in memory, are kept there
//!           while it is remembered, and never change. Bounded in number and size.
//! Not here: making the same for several destinations (pipeline/made.rs).

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

use super::blob::Blob;
use crate::connector::Payload;

/// So many are remembered, the youngest: the destinations of a route are about as far.
const MOST: usize = 64;
/// What is longer is packed for each destination anew.
const LONGEST_BYTES: usize = 64 << 10;

/// What is remembered.
#[derive(Default)]
pub(super) struct Packed(Mutex<VecDeque<(Vec<Payload>, Blob)>>);

impl Packed {
    /// Packs what was made from a message; none if nothing was.
    pub(super) async fn of(&self, output: Vec<Payload>, message: Bytes) -> Option<Blob> {
        if output.is_empty() {
            return None;
        }
        let length: usize = output.iter().map(|payload| payload.bytes().len()).sum();
        if length > LONGEST_BYTES {
            return Some(Blob::pack_output_async(output, message).await);
        }
        if output.iter().all(|payload| payload.bytes().is_unique()) {
            // Nobody else has it, so nobody will bring it again.
            return Some(Blob::pack_output(&output));
        }
        let known = self
            .0
            .lock()
            .iter()
            .rev()
            .find(|(known, _)| are_one(known, &output))
            .map(|(_, blob)| blob.clone());
        if known.is_some() {
            return known;
        }
        let blob = Blob::pack_output(&output);
        let mut youngest = self.0.lock();
        if youngest.len() >= MOST {
            youngest.pop_front();
        }
        youngest.push_back((output, blob.clone()));
        Some(blob)
    }
}

/// Whether both are the same bytes in memory: only then are they compared.
fn are_one(one: &[Payload], other: &[Payload]) -> bool {
    let same =
        |(one, other): (&Payload, &Payload)| one.bytes().as_ptr() == other.bytes().as_ptr() && one == other;
    one.len() == other.len() && one.iter().zip(other).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::blob::read_payloads;

    fn resource(id: &str, json: &Bytes) -> Payload {
        Payload::FhirResource { resource_type: "Patient".into(), id: id.into(), json: json.clone() }
    }

    #[tokio::test]
    async fn what_is_given_back_is_what_was_asked_for() {
        let packed = Packed::default();
        assert_eq!(packed.of(Vec::new(), Bytes::new()).await, None);
        let json = Bytes::from("{}".repeat(500));
        let long = Bytes::from(vec![b'x'; LONGEST_BYTES + 1]);
        let outputs = [
            vec![resource("1", &json)],
            vec![resource("2", &json)],
            vec![Payload::Hl7(json.clone()), Payload::Hl7(Bytes::new())],
            vec![Payload::Hl7(json.slice(..10))],
            vec![Payload::FhirBundle(json.slice(..10))],
            vec![Payload::Hl7(long)],
        ];
        for output in outputs.iter().cycle().take(20) {
            let blob = packed.of(output.clone(), Bytes::new()).await.unwrap();
            assert_eq!(read_payloads(blob.unpack(&[]).unwrap()).unwrap(), *output);
        }
        assert_eq!(packed.0.lock().len(), 5, "packed once, but for the long one");
        let alone = || vec![Payload::Hl7(Bytes::from(b"alone".repeat(9)))];
        assert_eq!(
            read_payloads(packed.of(alone(), Bytes::new()).await.unwrap().unpack(&[]).unwrap()).unwrap(),
            alone()
        );
        assert_eq!(packed.0.lock().len(), 5, "what nobody else has is not remembered");
    }

    #[tokio::test]
    async fn p6_little_is_remembered() {
        let packed = Packed::default();
        for number in 0..3 * MOST {
            let output = vec![Payload::Hl7(Bytes::from(number.to_string()))];
            packed.of(output.clone(), Bytes::new()).await.unwrap();
        }
        assert_eq!(packed.0.lock().len(), MOST);
    }
}
