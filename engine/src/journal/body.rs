//! Bodies as they lie in a store: compressed, with the hash of what they were.
//!
//! Promise:  what comes out is what went in, or a [`Flaw`] says that it is not. Packing happens at the caller,
//!           so that many producers share the work; the committer only moves blobs. The codec names the dictionary:
//!           one that a release has used stays for ever. That of a long output is the message it was made from, most
//!           of which it holds again: it comes out as long as the message does.
//! Not here: where the blobs lie (the stores); how a dictionary is made (dictionary/train.sh).

use std::{
    cell::RefCell,
    io,
    sync::{Arc, LazyLock},
    thread,
};

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking};
use zstd::{
    bulk::{Compressor, Decompressor},
    dict::{DecoderDictionary, EncoderDictionary},
    zstd_safe::{CCtx, CParameter, DCtx, compress_bound},
};

use crate::{
    connector::Payload,
    priority::{self, Way},
};

/// Level 1: three quarters of the gain of level 3 for half of its time, on messages of 1 to 20 kB.
const ZSTD_LEVEL: i32 = 1;
/// What messages and bundles have in common: a third of the bytes in a quarter of the time.
const DICTIONARY: &[u8] = include_bytes!("dictionary/1.zstd");
/// Nothing longer is ever unpacked: a damaged length must not become an allocation.
const LONGEST_BYTES: usize = 1 << 30;
/// From here on a message, or what was made of it, is long: whatever is done with it takes more than a millisecond, and it is
/// not packed on the asynchronous threads.
pub(crate) const LONG_BYTES: usize = 256 * 1024;
/// So far back, at most, is a message looked for in what was made from it: what any zstd takes when it unpacks.
const FARTHEST_BITS: u32 = 27;
/// Room for what stands before the bytes of a payload: kind, lengths, type and id.
const BEFORE_BYTES: usize = 128;
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + 8 + HASH_BYTES;

/// SHA-256 of the unpacked bytes.
pub type Hash = [u8; HASH_BYTES];

/// Bytes ready to be stored. `Debug` prints sizes only.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// Whether `packed` is compressed or plain.
    pub codec: Codec,
    /// Length of the unpacked bytes.
    pub size_bytes: usize,
    /// Of the unpacked bytes.
    pub hash: Hash,
    /// What is stored.
    pub packed: Vec<u8>,
}

/// How a body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it was: compression would not have helped.
    Plain,
    /// One zstd frame.
    Zstd,
    /// One zstd frame that needs the first dictionary.
    Zstd1,
    /// One zstd frame that needs the message it was made from.
    Beside,
}

/// Why stored bytes are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The compression or the layout around it is broken.
    #[error("the stored bytes cannot be unpacked")]
    Unreadable,
    /// They unpack to something else.
    #[error("the stored bytes do not match their hash")]
    Altered,
    /// They are not there any more, on purpose.
    #[error("the stored bytes were removed by retention")]
    Removed,
    /// There is no such message.
    #[error("the message is not there")]
    Missing,
}

impl Codec {
    /// The number in the store.
    pub fn number(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
            Self::Zstd1 => 2,
            Self::Beside => 3,
        }
    }

    /// The codec of a number in the store.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            2 => Some(Self::Zstd1),
            3 => Some(Self::Beside),
            _ => None,
        }
    }
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

    /// Packs what was made from a message; away from the asynchronous threads when it is long.
    pub async fn pack_output_async(output: Vec<Payload>, message: Bytes) -> Self {
        if output.iter().map(|payload| payload.bytes().len()).sum::<usize>() < LONG_BYTES {
            return Self::pack_output(&output);
        }
        apart(move || Self::pack_beside(&write_payloads(&output), &message)).await
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
        // A long one, such as a scanned document, has nothing of the dictionary.
        let codec = if bytes.len() < LONG_BYTES { Codec::Zstd1 } else { Codec::Zstd };
        Self::packed(bytes, codec, compress(codec, bytes))
    }

    /// Packs what was made from a message, here and now.
    pub fn pack_output(output: &[Payload]) -> Self {
        // Taken along from output to output, so that it is at hand in the processor's caches.
        thread_local! { static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) } }
        WRITTEN.with_borrow_mut(|written| {
            // Not only at the end: whatever ended early has left something.
            written.clear();
            write_payloads_to(written, output);
            let body = Self::pack(written);
            written.shrink_to(LONG_BYTES);
            body
        })
    }

    fn pack_beside(bytes: &[u8], message: &[u8]) -> Self {
        match compress_beside(bytes, message) {
            Some(packed) => Self::packed(bytes, Codec::Beside, Some(packed)),
            None => Self::pack(bytes),
        }
    }

    fn packed(bytes: &[u8], codec: Codec, packed: Option<Vec<u8>>) -> Self {
        let (codec, packed) = match packed {
            Some(packed) => (codec, packed),
            None => (Codec::Plain, bytes.to_vec()),
        };
        Self { codec, size_bytes: bytes.len(), hash: hash(bytes), packed }
    }

    /// Whether it comes out only with the message it was made from.
    pub fn needs_message(&self) -> bool {
        self.codec == Codec::Beside
    }

    /// The bytes that were packed, unpacked away from the asynchronous threads when they are many; `message` is what
    /// they were made from, if they need it.
    ///
    /// # Errors
    /// When they are damaged.
    pub async fn unpack_async(self, message: Bytes) -> Result<Bytes, Flaw> {
        if self.size_bytes < LONG_BYTES {
            return self.unpack_with(&message);
        }
        apart(move || self.unpack_with(&message)).await
    }

    /// The bytes that were packed.
    ///
    /// # Errors
    /// When they are damaged, or need a message to come out.
    pub fn unpack(&self) -> Result<Bytes, Flaw> {
        self.unpack_with(&[])
    }

    /// The bytes that were packed; `message` is what they were made from, if they need it.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn unpack_with(&self, message: &[u8]) -> Result<Bytes, Flaw> {
        let bytes = match self.codec {
            Codec::Plain => self.packed.clone(),
            Codec::Beside => {
                decompress_beside(&self.packed, message, self.size_bytes).ok_or(Flaw::Unreadable)?
            }
            codec => decompress(codec, &self.packed, self.size_bytes).ok_or(Flaw::Unreadable)?,
        };
        if bytes.len() != self.size_bytes || hash(&bytes) != self.hash {
            return Err(Flaw::Altered);
        }
        Ok(Bytes::from(bytes))
    }

    /// The length of [`Body::into_blob`].
    pub fn blob_bytes(&self) -> usize {
        HEAD_BYTES + self.packed.len()
    }

    /// The body as one blob: codec, length, hash, packed bytes.
    pub fn into_blob(self) -> Vec<u8> {
        let mut blob = Vec::with_capacity(self.blob_bytes());
        blob.push(self.codec.number());
        blob.extend_from_slice(&(self.size_bytes as u64).to_le_bytes());
        blob.extend_from_slice(&self.hash);
        blob.extend_from_slice(&self.packed);
        blob
    }

    /// The body of a blob.
    ///
    /// # Errors
    /// When the blob is too short or has no known codec.
    pub fn from_blob(blob: &[u8]) -> Result<Self, Flaw> {
        let (head, packed) = blob.split_at_checked(HEAD_BYTES).ok_or(Flaw::Unreadable)?;
        let (codec, rest) = head.split_first().ok_or(Flaw::Unreadable)?;
        let (size, hash) = rest.split_first_chunk::<8>().ok_or(Flaw::Unreadable)?;
        Ok(Self {
            codec: Codec::from_number(*codec).ok_or(Flaw::Unreadable)?,
            size_bytes: usize::try_from(u64::from_le_bytes(*size)).map_err(|_| Flaw::Unreadable)?,
            hash: hash.try_into().map_err(|_| Flaw::Unreadable)?,
            packed: packed.to_vec(),
        })
    }
}

/// Writes payloads one after the other, each with its kind and lengths.
pub fn write_payloads(payloads: &[Payload]) -> Bytes {
    let length = payloads.iter().map(|payload| BEFORE_BYTES + payload.bytes().len()).sum();
    let mut out = BytesMut::with_capacity(length);
    write_payloads_to(&mut out, payloads);
    out.freeze()
}

fn write_payloads_to(out: &mut impl BufMut, payloads: &[Payload]) {
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

fn put(out: &mut impl BufMut, bytes: &[u8]) {
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

static PACKING: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, ZSTD_LEVEL));
static UNPACKING: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

thread_local! {
    // A context costs more to make than a message to compress.
    static COMPRESSOR: RefCell<Option<Packer>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Unpacker>> = const { RefCell::new(None) };
}

struct Packer {
    plain: Compressor<'static>,
    with_dictionary: Compressor<'static>,
    /// Taken along from body to body: what comes out is a tenth of the room that zstd wants.
    room: Vec<u8>,
}

struct Unpacker {
    plain: Decompressor<'static>,
    with_dictionary: Decompressor<'static>,
}

impl Packer {
    fn new() -> io::Result<Self> {
        Ok(Self {
            plain: Compressor::new(ZSTD_LEVEL)?,
            with_dictionary: Compressor::with_prepared_dictionary(&PACKING)?,
            room: Vec::new(),
        })
    }

    /// None if it would not become shorter.
    fn pack(&mut self, codec: Codec, bytes: &[u8]) -> Option<Vec<u8>> {
        match codec {
            Codec::Plain | Codec::Beside => return None,
            // No room is kept for these: each thread would hold on to that of its longest.
            Codec::Zstd => {
                return self.plain.compress(bytes).ok().filter(|packed| packed.len() < bytes.len());
            }
            Codec::Zstd1 => {}
        }
        self.room.clear();
        self.room.reserve(compress_bound(bytes.len()));
        self.with_dictionary.compress_to_buffer(bytes, &mut self.room).ok()?;
        (self.room.len() < bytes.len()).then(|| self.room.clone())
    }
}

impl Unpacker {
    fn new() -> io::Result<Self> {
        Ok(Self {
            plain: Decompressor::new()?,
            with_dictionary: Decompressor::with_prepared_dictionary(&UNPACKING)?,
        })
    }

    fn unpack(&mut self, codec: Codec, packed: &[u8], size_bytes: usize) -> Option<Vec<u8>> {
        match codec {
            Codec::Plain | Codec::Beside => None,
            Codec::Zstd => self.plain.decompress(packed, size_bytes).ok(),
            Codec::Zstd1 => self.with_dictionary.decompress(packed, size_bytes).ok(),
        }
    }
}

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

fn compress(codec: Codec, bytes: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Packer::new().ok();
        }
        slot.as_mut()?.pack(codec, bytes)
    })
}

fn decompress(codec: Codec, packed: &[u8], size_bytes: usize) -> Option<Vec<u8>> {
    if size_bytes > LONGEST_BYTES {
        return None;
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Unpacker::new().ok();
        }
        slot.as_mut()?.unpack(codec, packed, size_bytes)
    })
}

/// None if it would not become shorter, or not by a short message, or the message would be too far from its end.
fn compress_beside(bytes: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let bits = (bytes.len() + message.len()).next_power_of_two().ilog2();
    if message.len() < LONG_BYTES || bits > FARTHEST_BITS {
        return None;
    }
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).ok()?;
    context.set_parameter(CParameter::WindowLog(bits)).ok()?;
    // Looks for what is long and far away: a document is found whole.
    context.set_parameter(CParameter::EnableLongDistanceMatching(true)).ok()?;
    context.ref_prefix(message).ok()?;
    let mut packed = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut packed, bytes).ok()?;
    packed.shrink_to_fit();
    (packed.len() < bytes.len()).then_some(packed)
}

fn decompress_beside(packed: &[u8], message: &[u8], size_bytes: usize) -> Option<Vec<u8>> {
    if size_bytes > LONGEST_BYTES {
        return None;
    }
    let mut context = DCtx::try_create()?;
    context.ref_prefix(message).ok()?;
    let mut bytes = Vec::with_capacity(size_bytes);
    context.decompress(&mut bytes, packed).ok()?;
    Some(bytes)
}

/// Does what takes milliseconds away from the asynchronous threads, and behind whoever else wants the processor: who sends
/// short messages is not to wait for a document. So many at once as there are processors.
async fn apart<T: Send + 'static>(work: impl Fn() -> T + Send + Sync + 'static) -> T {
    static TURNS: LazyLock<Semaphore> =
        LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(2, usize::from)));
    // They are never taken away. The work has its turn to its end, also when nobody waits for it any more.
    let turn = TURNS.acquire().await;
    let work = Arc::new(work);
    let there = work.clone();
    // The runtime knows by its own thread that somebody is at work.
    let done = spawn_blocking(move || {
        let _turn = turn;
        priority::spawn("long-body", Way::Behind, move || there()).ok()?.join().ok()
    });
    match done.await {
        Ok(Some(done)) => done,
        // Only when there are no threads, the runtime is going down or the work panicked: do it here.
        Ok(None) | Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::conformance::noise;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let body = Body::pack(&bytes);
            let blob = body.clone().into_blob();
            prop_assert_eq!(&body.unpack().unwrap()[..], &bytes[..]);
            prop_assert_eq!(&Body::from_blob(&blob).unwrap().unpack().unwrap()[..], &bytes[..]);
        }

        #[test]
        fn any_flipped_bit_is_found(bytes in proptest::collection::vec(0u8..4, 1..400), place: prop::sample::Index, bit in 0u8..8) {
            let mut blob = Body::pack(&bytes).into_blob();
            let place = place.index(blob.len());
            blob[place] ^= 1 << bit;
            let read = Body::from_blob(&blob).and_then(|body| body.unpack());
            // zstd has bits that carry nothing; what comes out must never be something else.
            prop_assert!(read.is_err() || read.unwrap() == bytes);
        }

        #[test]
        fn broken_payloads_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
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
        assert_eq!(read_payloads(write_payloads(&payloads)).unwrap(), payloads);
        assert_eq!(read_payloads(Bytes::new()).unwrap(), vec![]);
    }

    #[test]
    fn long_text_is_stored_compressed_and_debug_shows_none_of_it() {
        let body = Body::pack("NK1|1|CANARY^X\r".repeat(100).as_bytes());
        assert_eq!(body.codec, Codec::Zstd1);
        assert!(body.packed.len() < 200);
        assert!(!format!("{body:?}").contains("CANARY"));
    }

    #[test]
    fn what_was_packed_without_the_dictionary_or_is_long_comes_out_again() {
        let bytes = "OBX|1|NM|718-7^Haemoglobin^LN||142\r".repeat(40).into_bytes();
        let packed = Compressor::new(ZSTD_LEVEL).unwrap().compress(&bytes).unwrap();
        let old = Body { codec: Codec::Zstd, packed, ..Body::pack(&bytes) };
        assert_eq!(old.unpack().unwrap(), bytes);
        let long = Body::pack(&vec![b'A'; LONG_BYTES]);
        assert_eq!((long.codec, long.unpack().unwrap().len()), (Codec::Zstd, LONG_BYTES));
    }

    #[tokio::test]
    async fn a_long_output_is_packed_beside_its_message() {
        let document = noise(1, 300_000);
        let message = Bytes::from([b"MSH|^~\\&|".as_slice(), &document].concat());
        let output =
            vec![Payload::FhirBundle([b"{\"data\":\"".as_slice(), &document, b"\"}"].concat().into())];
        let body = Body::pack_output_async(output.clone(), message.clone()).await;
        assert!(body.needs_message() && body.packed.len() < 1000, "{body:?}");
        let blob = body.clone().into_blob();
        let out = Body::from_blob(&blob).unwrap().unpack_async(message.clone()).await;
        assert_eq!(read_payloads(out.unwrap()).unwrap(), output);
        assert_eq!(body.unpack(), Err(Flaw::Unreadable), "not without its message");
        let other = Bytes::from(noise(2, 300_000));
        assert!(body.clone().unpack_async(other).await.is_err(), "nor with another");
        let short = message.slice(..100);
        let alone = Body::pack_output_async(output.clone(), short).await;
        assert!(!alone.needs_message());
        assert_eq!(read_payloads(alone.unpack().unwrap()).unwrap(), output);
    }

    #[tokio::test]
    async fn p5_p6_what_takes_long_gives_way_and_few_do_it_at_once() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let one = || {
            let (at_work, most) = (at_work.clone(), most.clone());
            apart(move || {
                most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let (nice, _) = priority::of_this_thread();
                std::hint::black_box(hash(&vec![0; 1 << 20])); // others come meanwhile
                at_work.fetch_sub(1, Ordering::SeqCst);
                nice
            })
        };
        // Whoever does not wait for the end gives up no turn.
        (0..40).for_each(|_| assert_eq!(futures::FutureExt::now_or_never(one()), None));
        let nice = futures::future::join_all((0..40).map(|_| one())).await;
        let own = priority::of_this_thread().0;
        assert_eq!(nice, [own.max(10); 40]);
        let most = most.load(Ordering::SeqCst);
        assert!(most <= thread::available_parallelism().unwrap().get(), "{most} at once");
        let told = apart(|| thread::current().name() == Some("long-body") && panic!("a fault of ours"));
        assert!(!told.await, "done here when it fails there");
    }

    #[test]
    fn p6_what_no_zstd_would_unpack_is_packed_alone() {
        let far = vec![0; (1 << FARTHEST_BITS) - LONG_BYTES];
        assert_eq!(Body::pack_beside(&vec![7; LONG_BYTES], &far).codec, Codec::Beside);
        assert_eq!(Body::pack_beside(&vec![7; LONG_BYTES + 1], &far).codec, Codec::Zstd);
    }

    #[test]
    fn the_dictionary_is_the_one_that_bodies_were_packed_with() {
        let hash: String = hash(DICTIONARY).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hash, "a7877f02b17db1656df9572f9135ed4466e7be44feb7f043043fb1cddb521e45",
            "bodies in the field cannot be unpacked with another"
        );
    }

    #[test]
    fn messages_and_bundles_are_packed_to_a_fraction() {
        let read = |name: &str| {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/adt/").to_owned() + name;
            std::fs::read(path).unwrap()
        };
        for (name, at_least) in [("a01-full.hl7", 3), ("a01-full.json", 6)] {
            let bytes = read(name);
            let packed = Body::pack(&bytes).packed.len();
            assert!(packed * at_least < bytes.len(), "{name}: {} to {packed}", bytes.len());
        }
    }
}
