//! A program in which two tasks send boxes to each other. It has two threads, each pinned to its
//! own processor. Tokio decides which thread runs which task.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{runtime::Builder, sync::mpsc::unbounded_channel};

use crate::{contenders::Global, pin, workload::Taken};

/// The number of messages that are on their way at the same time.
const UNDER_WAY: usize = 32;

/// The number of messages in a chunk.
const MESSAGES: usize = 200_000;

type Message = Box<[u64; 8]>;

/// Sends messages and answers. An operation is one message and its answer, each in its own box. The
/// time is the wall time.
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
            // We spawn a task, because the calling thread is not pinned to a processor and so must
            // not run it.
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
            // Sending cannot fail, because the other task lives until it has answered every
            // message.
            let _ = to_there.send(Box::new([number as u64; 8]));
        }
        if number >= UNDER_WAY {
            here.recv().await;
        }
    }
    drop(to_there);
    let _ = answering.await;
}
