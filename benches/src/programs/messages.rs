//! A program in which two tokio tasks on two pinned threads send boxes to each other.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{runtime::Builder, sync::mpsc::unbounded_channel};

use crate::{contenders::Global, pin, workload::Taken};

/// The number of messages that are in flight at the same time.
const UNDER_WAY: usize = 32;

const MESSAGES: usize = 200_000;

type Message = Box<[u64; 8]>;

/// Sends messages and their answers, each in its own box.
///
/// # Panics
///
/// Panics if the threads cannot be started.
pub(super) fn ping_pong(_: &mut Global) -> Taken {
    let started = AtomicUsize::new(0);
    let pinned = move || pin::to_processor(started.fetch_add(1, Ordering::Relaxed));
    let mut builder = Builder::new_multi_thread();
    let runtime = match builder.worker_threads(2).on_thread_start(pinned).build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("cannot start a runtime: {error}"),
    };
    Taken::together(MESSAGES, || {
        runtime.block_on(async {
            // The calling thread is not pinned, so the task runs on another thread.
            let _ = tokio::spawn(exchange()).await;
        });
    })
}

async fn exchange() {
    let (to_there, mut there) = unbounded_channel::<Message>();
    let (to_here, mut here) = unbounded_channel::<Message>();
    let answering = tokio::spawn(async move {
        while let Some(message) = there.recv().await {
            if to_here.send(Box::new([message[0] + 1; 8])).is_err() {
                return;
            }
        }
    });
    for number in 0..MESSAGES + UNDER_WAY {
        if number < MESSAGES {
            // The other task lives until it has answered every message, so sending cannot fail.
            let _ = to_there.send(Box::new([number as u64; 8]));
        }
        if number >= UNDER_WAY {
            here.recv().await;
        }
    }
    drop(to_there);
    let _ = answering.await;
}
