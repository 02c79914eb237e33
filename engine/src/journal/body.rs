//! Messages as they lie in a store: packed, with the hash of what they were.
//!
//! Promise:  what comes out is what went in, or a [`Flaw`] says that it is not. Packing happens at the caller,
//!           so that many producers share the work; the committer only moves bytes.
//! Not here: packing itself (codec.rs); what was made of a message (blob.rs); where it lies (the stores).

use bytes::Bytes;

use super::codec::{self, Codec, Flaw, Hash, LONG_BYTES, apart, hash};

/// A message ready to be stored. `Debug` prints sizes only.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// How `packed` is packed.
    pub codec: Codec,
    /// Length of the unpacked bytes.
    pub size_bytes: usize,
    /// Of the unpacked bytes: a repeat is known by it.
    pub hash: Hash,
    /// What is stored.
    pub packed: Vec<u8>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes, {} stored)", self.size_bytes, self.packed.len())
    }
}

impl Body {
    /// Packs bytes, away from the asynchronous threads when they are many.
    pub async fn pack_async(bytes: Bytes) -> Self {
        if bytes.len() < LONG_BYTES {
            return Self::pack(&bytes);
        }
        apart(move || Self::pack(&bytes)).await
    }

    /// What the hash of the bytes will be, taken away from the asynchronous threads when they are many.
    pub async fn hash_async(bytes: &Bytes) -> Hash {
        if bytes.len() < LONG_BYTES {
            return hash(bytes);
        }
        let bytes = bytes.clone();
        apart(move || hash(&bytes)).await
    }

    /// Packs bytes.
    pub fn pack(bytes: &[u8]) -> Self {
        let mut packed = Vec::new();
        let codec = codec::pack(bytes, &mut packed);
        Self { codec, size_bytes: bytes.len(), hash: hash(bytes), packed }
    }

    /// The bytes that were packed, unpacked away from the asynchronous threads when they are many.
    ///
    /// # Errors
    /// When they are damaged.
    pub async fn unpack_async(self) -> Result<Bytes, Flaw> {
        if self.size_bytes < LONG_BYTES {
            return self.unpack();
        }
        apart(move || self.unpack()).await
    }

    /// The bytes that were packed.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn unpack(&self) -> Result<Bytes, Flaw> {
        let bytes = codec::unpack(self.codec, &self.packed, self.size_bytes, &[])?;
        if hash(&bytes) != self.hash {
            return Err(Flaw::Altered);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again_and_a_flipped_bit_is_found(
            bytes in proptest::collection::vec(0u8..4, 1..3000), place: prop::sample::Index, bit in 0u8..8,
        ) {
            let mut body = Body::pack(&bytes);
            prop_assert_eq!(&body.unpack().unwrap()[..], &bytes[..]);
            let place = place.index(body.packed.len());
            body.packed[place] ^= 1 << bit;
            // zstd has bits that carry nothing; what comes out must never be something else.
            let read = body.unpack();
            prop_assert!(read.is_err() || read.unwrap() == bytes);
        }
    }

    #[test]
    fn long_text_is_stored_compressed_and_debug_shows_none_of_it() {
        let body = Body::pack("NK1|1|CANARY^X\r".repeat(100).as_bytes());
        assert_eq!(body.codec, Codec::Zstd1);
        assert!(body.packed.len() < 200);
        assert!(!format!("{body:?}").contains("CANARY"));
    }
}
