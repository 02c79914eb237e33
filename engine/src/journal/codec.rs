//! How bytes are packed for a store, and unpacked.
//!
//! Promise:  what comes out has the length that was told, or a [`Flaw`] says why it does not. The codec names the
//!           dictionary: one that a release has used stays for ever. Memory taken by a damaged length is bounded.
//! Not here: of what a hash is kept (body.rs, blob.rs); how a dictionary is made (dictionary/train.sh).

use std::{
    cell::RefCell,
    io,
    sync::{Arc, LazyLock},
    thread,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking};
use zstd::{
    bulk::{Compressor, Decompressor},
    dict::{DecoderDictionary, EncoderDictionary},
    zstd_safe::{CCtx, CParameter, DCtx, compress_bound},
};

use crate::priority::{self, Way};

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
pub(super) const HASH_BYTES: usize = 32;

/// SHA-256.
pub type Hash = [u8; HASH_BYTES];

/// How bytes are packed.
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
    /// They are not what was written.
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

/// Packs bytes behind what is there already, and says how.
pub(super) fn pack(bytes: &[u8], to: &mut Vec<u8>) -> Codec {
    // A long one, such as a scanned document, has nothing of the dictionary.
    let codec = if bytes.len() < LONG_BYTES { Codec::Zstd1 } else { Codec::Zstd };
    let packed = PACKER.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Packer::new().ok();
        }
        slot.as_mut()?.pack(codec, bytes, to)
    });
    if packed.is_none() {
        to.extend_from_slice(bytes);
        return Codec::Plain;
    }
    codec
}

/// Packs what was made from a message behind what is there already. None, and nothing done, if it would not become
/// shorter, or not by a short message, or the message would be too far from its end.
pub(super) fn pack_beside(bytes: &[u8], message: &[u8], to: &mut Vec<u8>) -> Option<Codec> {
    let bits = (bytes.len() + message.len()).next_power_of_two().ilog2();
    if message.len() < LONG_BYTES || bits > FARTHEST_BITS {
        return None;
    }
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).ok()?;
    context.set_parameter(CParameter::WindowLog(bits)).ok()?;
    // Looks for what is long and far away: a document is found whole.
    context.set_parameter(CParameter::EnableLongDistanceMatching(true)).ok()?;
    // Beside another message something else would come out.
    context.set_parameter(CParameter::ChecksumFlag(true)).ok()?;
    context.ref_prefix(message).ok()?;
    let mut packed = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut packed, bytes).ok()?;
    if packed.len() >= bytes.len() {
        return None;
    }
    to.reserve_exact(packed.len());
    to.extend_from_slice(&packed);
    Some(Codec::Beside)
}

/// The bytes that were packed; `message` is what they were made from, if they need it.
pub(super) fn unpack(codec: Codec, packed: &[u8], size_bytes: usize, message: &[u8]) -> Result<Bytes, Flaw> {
    if size_bytes > LONGEST_BYTES {
        return Err(Flaw::Unreadable);
    }
    let bytes = match codec {
        Codec::Plain => Some(packed.to_vec()),
        Codec::Beside => unpack_beside(packed, message, size_bytes),
        Codec::Zstd | Codec::Zstd1 => UNPACKER.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = Unpacker::new().ok();
            }
            slot.as_mut()?.unpack(codec, packed, size_bytes)
        }),
    };
    let bytes = bytes.ok_or(Flaw::Unreadable)?;
    if bytes.len() != size_bytes {
        return Err(Flaw::Altered);
    }
    Ok(Bytes::from(bytes))
}

fn unpack_beside(packed: &[u8], message: &[u8], size_bytes: usize) -> Option<Vec<u8>> {
    let mut context = DCtx::try_create()?;
    context.ref_prefix(message).ok()?;
    let mut bytes = Vec::with_capacity(size_bytes);
    context.decompress(&mut bytes, packed).ok()?;
    Some(bytes)
}

pub(super) fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

static PACKING: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, ZSTD_LEVEL));
static UNPACKING: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

thread_local! {
    // A context costs more to make than a message to compress.
    static PACKER: RefCell<Option<Packer>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<Unpacker>> = const { RefCell::new(None) };
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

    /// Behind what is there already. None, and nothing done, if it would not become shorter.
    fn pack(&mut self, codec: Codec, bytes: &[u8], to: &mut Vec<u8>) -> Option<()> {
        let mut alone;
        let room = match codec {
            Codec::Plain | Codec::Beside => return None,
            // No room is kept for these: each thread would hold on to that of its longest.
            Codec::Zstd => {
                alone = self.plain.compress(bytes).ok()?;
                &mut alone
            }
            Codec::Zstd1 => {
                self.room.clear();
                self.room.reserve(compress_bound(bytes.len()));
                self.with_dictionary.compress_to_buffer(bytes, &mut self.room).ok()?;
                &mut self.room
            }
        };
        if room.len() >= bytes.len() {
            return None;
        }
        to.reserve_exact(room.len());
        to.extend_from_slice(room);
        Some(())
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

/// Does what takes milliseconds away from the asynchronous threads, and behind whoever else wants the processor: who sends
/// short messages is not to wait for a document. So many at once as there are processors.
pub(super) async fn apart<T: Send + 'static>(work: impl Fn() -> T + Send + Sync + 'static) -> T {
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
    use super::*;

    fn packed(bytes: &[u8]) -> (Codec, Vec<u8>) {
        let mut to = Vec::new();
        (pack(bytes, &mut to), to)
    }

    #[test]
    fn what_was_packed_without_the_dictionary_or_is_long_comes_out_again() {
        let bytes = "OBX|1|NM|718-7^Haemoglobin^LN||142\r".repeat(40).into_bytes();
        let old = Compressor::new(ZSTD_LEVEL).unwrap().compress(&bytes).unwrap();
        assert_eq!(unpack(Codec::Zstd, &old, bytes.len(), &[]).unwrap(), bytes);
        let (codec, long) = packed(&vec![b'A'; LONG_BYTES]);
        assert_eq!(codec, Codec::Zstd);
        assert_eq!(unpack(codec, &long, LONG_BYTES, &[]).unwrap().len(), LONG_BYTES);
    }

    #[test]
    fn what_is_packed_lies_behind_what_was_there() {
        for bytes in ["x", &"MSH|^~\\&|".repeat(100)] {
            let mut to = b"head".to_vec();
            let codec = pack(bytes.as_bytes(), &mut to);
            assert_eq!(codec == Codec::Plain, bytes == "x");
            assert_eq!(unpack(codec, to.strip_prefix(b"head").unwrap(), bytes.len(), &[]).unwrap(), bytes);
        }
    }

    #[test]
    fn p6_a_length_that_is_not_true_is_told_and_takes_no_memory() {
        let (codec, bytes) = packed(&[7; 5000]);
        for (length, flaw) in
            [(4999, Flaw::Unreadable), (5001, Flaw::Altered), (usize::MAX, Flaw::Unreadable)]
        {
            assert_eq!(unpack(codec, &bytes, length, &[]), Err(flaw), "{length}");
        }
        assert_eq!(unpack(Codec::Plain, b"abc", 2, &[]), Err(Flaw::Altered));
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
        let mut to = Vec::new();
        assert_eq!(pack_beside(&vec![7; LONG_BYTES + 1], &far, &mut to), None);
        assert!(to.is_empty());
        assert_eq!(pack_beside(&vec![7; LONG_BYTES], &far, &mut to), Some(Codec::Beside));
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
            let packed = packed(&bytes).1.len();
            assert!(packed * at_least < bytes.len(), "{name}: {} to {packed}", bytes.len());
        }
    }
}
