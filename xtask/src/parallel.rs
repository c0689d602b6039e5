//! Processes a list of items on several threads.

use std::{iter, sync::Mutex, thread};

use anyhow::Result;

/// Calls `work` with each item on one of several threads. Also passes the result of `begin`, which
/// each thread calls once.
///
/// # Errors
///
/// Fails if `begin` or `work` fails, after the other threads have processed the remaining items.
///
/// # Panics
///
/// Panics if `begin` or `work` panics.
pub(crate) fn in_parallel<T: Send, S, R: Send>(
    threads: usize,
    items: Vec<T>,
    begin: impl Fn(usize) -> Result<S> + Sync,
    work: impl Fn(&S, T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let queue = Mutex::new(items.into_iter());
    let run = |thread| -> Result<Vec<R>> {
        let state = begin(thread)?;
        let next = || queue.lock().expect("taking an item does not panic").next();
        iter::from_fn(next).map(|item| work(&state, item)).collect()
    };
    thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let mut done = Vec::new();
        for thread in running {
            done.extend(thread.join().expect("no worker panics")?);
        }
        Ok(done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        let mut done = in_parallel(3, (0..100).collect(), Ok, |_, item| Ok(item)).unwrap();
        done.sort_unstable();
        assert!(done.into_iter().eq(0..100));
    }

    #[test]
    fn an_error_is_returned() {
        let work = |_: &usize, item| if item == 5 { anyhow::bail!("five") } else { Ok(()) };
        assert_eq!(in_parallel(2, (0..9).collect(), Ok, work).unwrap_err().to_string(), "five");
    }
}
