//! The figures of the whole process.

use std::hint::black_box;

use global_alloc::{Detail, Figures, Kind, ObMalloc};

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

#[test]
fn the_figures_add_up() {
    adds_up(&GLOBAL.stats());
}

fn adds_up(figures: &Figures) {
    let parts = figures.active() + figures.retained() + figures.purged();
    assert_eq!(parts, figures.mapped(), "{figures}");
    let by_class: usize = figures.classes().iter().map(|class| class.in_use.allocated).sum();
    let by_kind: usize = Kind::ALL.iter().map(|kind| figures.of_kind(*kind).allocated).sum();
    assert_eq!(by_class + figures.of_kind(Kind::Large).allocated, by_kind);
    assert!(figures.highwater >= figures.active() && figures.allocated() <= figures.active());
}

#[test]
fn a_report_can_be_text_json_and_prometheus() {
    let block = black_box(vec![1_u8; 1 << 20]);
    let figures = GLOBAL.stats();
    let mut json = String::new();
    figures.write_json(&mut json, Detail::Classes).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["allocated"], figures.allocated());
    assert_eq!(json["limit"], serde_json::Value::Null);
    assert!(json["kinds"]["large"]["allocated"].as_u64() >= Some(1 << 20), "{json}");
    assert!(json["classes"][0]["blocks"].as_u64() > Some(0), "{json}");
    let mut metrics = String::new();
    figures.write_prometheus(&mut metrics, Detail::Classes).unwrap();
    let allocated = format!("\nobmalloc_allocated_bytes {}\n", figures.allocated());
    assert!(metrics.contains(&allocated), "{metrics}");
    assert!(metrics.contains("\n# TYPE obmalloc_arenas gauge\nobmalloc_arenas "), "{metrics}");
    assert!(metrics.contains("\nobmalloc_class_blocks{block_size=\"16\"} "), "{metrics}");
    let text = format!("{figures:#}");
    assert!(text.contains("\nkind ") && text.contains("\nclass "), "{text}");
    drop(block);
}
