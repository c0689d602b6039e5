//! Other people's crates with obmalloc as the global allocator. The tests check the results that
//! they compute.

#![cfg(not(miri))]

use std::{collections::BTreeMap, ptr::NonNull, sync::Arc, time::Duration};

use obmalloc::Blocks;
use rayon::prelude::*;
use thread_heap::PerThread;

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

/// Returns true if the small block at `start` belongs to the heap of a thread.
fn is_of_the_pools<T>(start: *const T) -> bool {
    let start = NonNull::new(start.cast_mut().cast()).expect("a block");
    // SAFETY: the callers pass the start of a live block of the global allocator.
    unsafe { PerThread.size_if_ours(start) }.is_some()
}

/// Returns a JSON object that contains numbers, strings, lists and objects.
fn record(number: u64) -> serde_json::Value {
    serde_json::json!({
        "id": number,
        "name": format!("record number {number}"),
        "tags": (0..number % 7).map(|tag| format!("tag-{tag}")).collect::<Vec<_>>(),
        "nested": { "half": number as f64 / 2.0, "odd": number % 2 == 1, "nothing": null },
    })
}

#[test]
fn serde_json_reads_megabytes_that_it_wrote() {
    let records: Vec<_> = (0..30_000).map(record).collect();
    let text = serde_json::to_string(&records).expect("it can be written");
    assert!(text.len() > 3 << 20, "{} bytes", text.len());
    let parsed: Vec<serde_json::Value> = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(parsed, records);
    let name = |record: &serde_json::Value| {
        record["name"].as_str().is_some_and(|name| is_of_the_pools(name.as_ptr()))
    };
    assert!(parsed.iter().all(name));
    drop(records);
    let ids: u64 = parsed.iter().filter_map(|record| record["id"].as_u64()).sum();
    assert_eq!(ids, 30_000 * 29_999 / 2);
}

#[test]
fn rayon_sorts_and_counts_words() {
    let mut words: Vec<String> = (0..200_000_u32)
        .into_par_iter()
        .map(|number| format!("{:06}", number.wrapping_mul(7919) % 200_000))
        .collect();
    words.par_sort();
    assert!(words.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(words.iter().all(|word| is_of_the_pools(word.as_ptr())));
    let counts = words
        .par_iter()
        .fold(BTreeMap::new, |mut counts: BTreeMap<String, usize>, word| {
            *counts.entry(word[..2].to_owned()).or_default() += 1;
            counts
        })
        .reduce(BTreeMap::new, |mut all, part| {
            part.into_iter().for_each(|(key, count)| *all.entry(key).or_default() += count);
            all
        });
    // 7919 and 200,000 have no common factor, so each number from 0 to 199,999 occurs once.
    assert_eq!((counts.len(), counts["00"], counts["19"]), (20, 10_000, 10_000));
}

#[test]
fn tokio_passes_messages_between_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .expect("there are threads");
    let sum = runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Arc<Vec<u64>>>(16);
        for task in 0..200_u64 {
            let sender = sender.clone();
            tokio::spawn(async move {
                for step in 0..50 {
                    let numbers = Arc::new((0..=step).map(|number| number + task).collect());
                    sender.send(numbers).await.expect("somebody receives");
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(Duration::from_millis(task % 3)).await;
            });
        }
        drop(sender);
        let mut sum = 0;
        while let Some(numbers) = receiver.recv().await {
            assert!(is_of_the_pools(numbers.as_ptr()));
            sum += numbers.iter().sum::<u64>();
        }
        sum
    });
    // Task `n` adds 1,275 × n and 20,825, which is the sum of the first 49 triangular numbers.
    assert_eq!(sum, 1275 * (199 * 200 / 2) + 200 * 20_825);
}

#[test]
fn rhai_runs_a_script_with_many_small_objects() {
    let script = r#"
        fn fibonacci(n) { if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) } }
        let words = [];
        for number in 0..5000 { words.push("word " + number); }
        let lengths = #{};
        for word in words {
            let key = "of " + word.len();
            lengths[key] = (lengths[key] ?? 0) + 1;
        }
        [fibonacci(17), lengths["of 6"], lengths["of 7"], lengths["of 8"], lengths["of 9"]]
    "#;
    let run = || {
        let mut engine = rhai::Engine::new();
        engine.set_max_call_levels(64);
        let result: rhai::Array = engine.eval(script).expect("it runs");
        assert!(is_of_the_pools(result.as_ptr()));
        result.into_iter().map(|number| number.as_int().expect("a number")).collect::<Vec<_>>()
    };
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(run)).collect();
    for thread in threads {
        assert_eq!(thread.join().expect("it runs"), [1597, 10, 90, 900, 4000]);
    }
}
