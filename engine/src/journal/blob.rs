//! What was made of a message, and what was answered, as it lies in a store: one piece of bytes that says itself how it
//! is packed, and proves that it is still the same.
//!
//! Promise:  what comes out is what went in, or a [`Flaw`] says that it is not. The hash is that of the packed bytes: a
//!           tenth of the work, and nobody compares what was sent by its hash. What is long is packed beside the
//!           message it was made from, most of which it holds again: it comes out as long as the message does, which is
//!           proven by its own hash; zstd's checksum says that it was that message.
//! Not here: packing itself (codec.rs); the message (body.rs); where it lies (the stores).

use std::cell::RefCell;

use bytes::{BufMut, Bytes};
use sha2::{Digest, Sha256};

use super::codec::{self, Codec, Flaw, HASH_BYTES, Hash, LONG_BYTES, apart};
use crate::connector::Payload;

/// Room for what stands before the bytes of a payload: kind, lengths, type and id.
const BEFORE_BYTES: usize = 128;
/// Codec, length of the unpacked bytes, hash of all the rest.
const HEAD_BYTES: usize = 1 + 8 + HASH_BYTES;

/// Bytes ready to be stored, or as they were read. `Debug` prints sizes only.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob(Vec<u8>);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Blob {
    /// Packs bytes, away from the asynchronous threads when they are many.
    pub async fn pack_async(bytes: Bytes) -> Self {
        if bytes.len() < LONG_BYTES {
            return Self::pack(&bytes);
        }
        apart(move || Self::pack(&bytes)).await
    }

    /// Packs what was made from a message; away from the asynchronous threads when it is long.
    pub async fn pack_output_async(output: Vec<Payload>, message: Bytes) -> Self {
        if output.iter().map(|payload| payload.bytes().len()).sum::<usize>() < LONG_BYTES {
            return Self::pack_output(&output);
        }
        apart(move || Self::pack_beside(&output, &message)).await
    }

    /// Packs what was made from a message, here and now.
    pub fn pack_output(output: &[Payload]) -> Self {
        // Taken along from output to output, so that it is at hand in the processor's caches.
        thread_local! { static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) } }
        WRITTEN.with_borrow_mut(|written| {
            // Not only at the end: whatever ended early has left something.
            written.clear();
            write_payloads(output, written);
            let blob = Self::pack(written);
            written.shrink_to(LONG_BYTES);
            blob
        })
    }

    fn pack(bytes: &[u8]) -> Self {
        Self::of(bytes.len(), |to| codec::pack(bytes, to))
    }

    fn pack_beside(output: &[Payload], message: &[u8]) -> Self {
        let mut bytes = Vec::new();
        write_payloads(output, &mut bytes);
        Self::of(bytes.len(), |to| {
            codec::pack_beside(&bytes, message, to).unwrap_or_else(|| codec::pack(&bytes, to))
        })
    }

    fn of(size_bytes: usize, pack: impl FnOnce(&mut Vec<u8>) -> Codec) -> Self {
        let mut blob = vec![0; HEAD_BYTES];
        let codec = pack(&mut blob);
        if let Some((head, packed)) = blob.split_first_chunk_mut::<HEAD_BYTES>() {
            let seal = seal(codec, size_bytes, packed);
            let size = (size_bytes as u64).to_le_bytes();
            let written = [codec.number()].into_iter().chain(size).chain(seal);
            head.iter_mut().zip(written).for_each(|(to, byte)| *to = byte);
        }
        Self(blob)
    }

    /// What a store has.
    pub fn read(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What a store keeps.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// How many bytes a store keeps.
    pub fn stored_bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether it comes out only with the message it was made from.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn needs_message(&self) -> Result<bool, Flaw> {
        self.parts().map(|parts| parts.codec == Codec::Beside)
    }

    /// The bytes that were packed, unpacked away from the asynchronous threads when they are many; `message` is what
    /// they were made from, if they need it.
    ///
    /// # Errors
    /// When they are damaged.
    pub async fn unpack_async(self, message: Bytes) -> Result<Bytes, Flaw> {
        let parts = self.parts()?;
        if parts.size_bytes.max(parts.packed.len()) < LONG_BYTES {
            return self.unpack(&message);
        }
        apart(move || self.unpack(&message)).await
    }

    /// The bytes that were packed; `message` is what they were made from, if they need it.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn unpack(&self, message: &[u8]) -> Result<Bytes, Flaw> {
        let Parts { codec, size_bytes, seal, packed } = self.parts()?;
        if self::seal(codec, size_bytes, packed) != *seal {
            return Err(Flaw::Altered);
        }
        codec::unpack(codec, packed, size_bytes, message)
    }

    fn parts(&self) -> Result<Parts<'_>, Flaw> {
        let (head, packed) = self.0.split_first_chunk::<HEAD_BYTES>().ok_or(Flaw::Unreadable)?;
        let (number, rest) = head.split_first().ok_or(Flaw::Unreadable)?;
        let (size, seal) = rest.split_first_chunk::<8>().ok_or(Flaw::Unreadable)?;
        Ok(Parts {
            codec: Codec::from_number(*number).ok_or(Flaw::Unreadable)?,
            size_bytes: usize::try_from(u64::from_le_bytes(*size)).map_err(|_| Flaw::Unreadable)?,
            seal: seal.try_into().map_err(|_| Flaw::Unreadable)?,
            packed,
        })
    }
}

/// What it says of itself.
struct Parts<'b> {
    codec: Codec,
    /// Of the unpacked bytes.
    size_bytes: usize,
    seal: &'b Hash,
    packed: &'b [u8],
}

/// The hash over all the rest.
fn seal(codec: Codec, size_bytes: usize, packed: &[u8]) -> Hash {
    let hash = Sha256::new().chain_update([codec.number()]).chain_update((size_bytes as u64).to_le_bytes());
    hash.chain_update(packed).finalize().into()
}

/// Writes payloads one after the other, each with its kind and lengths.
fn write_payloads(payloads: &[Payload], out: &mut Vec<u8>) {
    out.reserve(payloads.iter().map(|payload| BEFORE_BYTES + payload.bytes().len()).sum());
    for payload in payloads {
        match payload {
            Payload::FhirBundle(bytes) => {
                out.put_u8(1);
                put(out, bytes);
            }
            Payload::FhirResource { resource_type, id, json } => {
                out.put_u8(2);
                put(out, resource_type.as_bytes());
                put(out, id.as_bytes());
                put(out, json);
            }
            Payload::Hl7(bytes) => {
                out.put_u8(3);
                put(out, bytes);
            }
        }
    }
}

/// Reads what [`write_payloads`] wrote.
///
/// # Errors
/// When it is something else.
pub fn read_payloads(mut bytes: Bytes) -> Result<Vec<Payload>, Flaw> {
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        let kind = bytes.split_to(1);
        payloads.push(match kind.first() {
            Some(1) => Payload::FhirBundle(take(&mut bytes)?),
            Some(2) => Payload::FhirResource {
                resource_type: text(take(&mut bytes)?)?,
                id: text(take(&mut bytes)?)?,
                json: take(&mut bytes)?,
            },
            Some(3) => Payload::Hl7(take(&mut bytes)?),
            _ => return Err(Flaw::Unreadable),
        });
    }
    Ok(payloads)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u64_le(bytes.len() as u64);
    out.put_slice(bytes);
}

fn take(bytes: &mut Bytes) -> Result<Bytes, Flaw> {
    let length = bytes.split_first_chunk::<8>().map(|(head, _)| u64::from_le_bytes(*head));
    let length = usize::try_from(length.ok_or(Flaw::Unreadable)?).map_err(|_| Flaw::Unreadable)?;
    if bytes.len() - 8 < length {
        return Err(Flaw::Unreadable);
    }
    let _head = bytes.split_to(8);
    Ok(bytes.split_to(length))
}

fn text(bytes: Bytes) -> Result<String, Flaw> {
    String::from_utf8(bytes.into()).map_err(|_| Flaw::Unreadable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::conformance::noise;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let blob = Blob::read(Blob::pack(&bytes).into_bytes());
            prop_assert_eq!(&blob.unpack(&[]).unwrap()[..], &bytes[..]);
        }

        #[test]
        fn any_flipped_bit_is_found(bytes in proptest::collection::vec(0u8..4, 1..400), place: prop::sample::Index, bit in 0u8..8) {
            let mut blob = Blob::pack(&bytes).into_bytes();
            let place = place.index(blob.len());
            blob[place] ^= 1 << bit;
            prop_assert!(Blob::read(blob).unpack(&[]).is_err());
        }

        #[test]
        fn broken_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Blob::read(bytes.clone()).unpack(&[]).is_err());
            let _ = read_payloads(Bytes::from(bytes));
        }
    }

    #[test]
    fn payloads_come_back_in_order() {
        let payloads = vec![
            Payload::Hl7(Bytes::from_static(b"MSH|^~\\&|")),
            Payload::FhirResource {
                resource_type: "Patient".into(),
                id: "1".into(),
                json: Bytes::from_static(b"{}"),
            },
            Payload::FhirBundle(Bytes::new()),
        ];
        assert_eq!(read_payloads(Blob::pack_output(&payloads).unpack(&[]).unwrap()).unwrap(), payloads);
        assert_eq!(read_payloads(Bytes::new()).unwrap(), vec![]);
    }

    #[tokio::test]
    async fn a_long_output_is_packed_beside_its_message() {
        let document = noise(1, 300_000);
        let message = Bytes::from([b"MSH|^~\\&|".as_slice(), &document].concat());
        let output =
            vec![Payload::FhirBundle([b"{\"data\":\"".as_slice(), &document, b"\"}"].concat().into())];
        let blob = Blob::pack_output_async(output.clone(), message.clone()).await;
        assert!(blob.needs_message().unwrap() && blob.stored_bytes() < 1000, "{blob:?}");
        let out = blob.clone().unpack_async(message.clone()).await;
        assert_eq!(read_payloads(out.unwrap()).unwrap(), output);
        assert_eq!(blob.unpack(&[]), Err(Flaw::Unreadable), "not without its message");
        let other = Bytes::from(noise(2, 300_009));
        assert!(blob.clone().unpack_async(other).await.is_err(), "nor with another");
        let short = message.slice(..100);
        let alone = Blob::pack_output_async(output.clone(), short).await;
        assert!(!alone.needs_message().unwrap());
        assert_eq!(read_payloads(alone.unpack(&[]).unwrap()).unwrap(), output);
    }
}
