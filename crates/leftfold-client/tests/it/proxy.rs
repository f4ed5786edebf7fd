//! A way to the server that breaks.
//!
//! **Owns:** [`Proxy`] and chance that can be repeated. **Does not know:** what passes through it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Chance that follows from a seed.
pub(crate) struct Chance(u64);

impl Chance {
    /// From `LEFTFOLD_SEED`, or this; printed, so that a failure can be repeated.
    pub(crate) fn seeded(seed: u64) -> Self {
        let given = std::env::var("LEFTFOLD_SEED").ok();
        let seed = given.and_then(|text| text.parse().ok()).unwrap_or(seed);
        eprintln!("LEFTFOLD_SEED={seed}");
        Self(seed)
    }

    /// A number in the range (splitmix64).
    pub(crate) fn from(&mut self, least: u64, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        least + (z ^ (z >> 31)) % (most - least + 1)
    }
}

/// Passes bytes on, and cuts each connection after a number of them.
pub(crate) struct Proxy {
    pub(crate) address: String,
    whole: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// Before `place`, cutting each connection after `least` to `most` bytes in one of the directions.
    pub(crate) async fn before(place: String, chance: Chance, (least, most): (u64, u64)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("leftfold://{}", listener.local_addr().unwrap());
        let (whole, cuts) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (is_whole, count) = (Arc::clone(&whole), Arc::clone(&cuts));
        let chance = Arc::new(Mutex::new(chance));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let bytes = if is_whole.load(Ordering::SeqCst) {
                    u64::MAX
                } else {
                    chance.lock().unwrap().from(least, most)
                };
                let (place, count) = (place.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(place).await {
                        pass(socket, server, bytes).await;
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self {
            address,
            whole,
            cuts,
        }
    }

    /// New connections are not cut any more.
    pub(crate) fn heal(&self) {
        self.whole.store(true, Ordering::SeqCst);
    }

    /// How many connections ended.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }
}

/// Ends when one direction has passed so many bytes, and ends both at once.
async fn pass(client: TcpStream, server: TcpStream, bytes: u64) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, bytes) => {}
        () = copy(from_server, to_client, bytes) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut bytes: u64) {
    let mut piece = [0; 512];
    while bytes > 0 {
        let most = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(piece.len());
        match from.read(&mut piece[..most]).await {
            Ok(read) if read > 0 && to.write_all(&piece[..read]).await.is_ok() => {
                bytes -= read as u64;
            }
            _ => return,
        }
    }
}
