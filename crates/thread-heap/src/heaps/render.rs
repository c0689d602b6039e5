//! Formats the figures as text, as JSON and in the text format of Prometheus, without allocating
//! memory.
//!
//! The format of Prometheus: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

#![forbid(unsafe_code)]

use std::fmt::{self, Write};

use obmalloc::{ClassInUse, InUse, Kind};

use super::figures::Figures;

/// How much detail a report contains about the blocks in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// One entry for each kind of memory.
    #[default]
    Kinds,
    /// Also one entry for each size class that has a block in use.
    Classes,
}

/// A single number of a report.
struct Total {
    name: &'static str,
    help: &'static str,
    value: usize,
}

impl Figures {
    fn totals(&self) -> [Total; 9] {
        let total = |name, help, value| Total { name, help, value };
        [
            total("allocated", "Bytes of blocks in use.", self.allocated()),
            total("active", "Bytes of pools and mappings with a block in use.", self.active()),
            total("retained", "Free bytes that may be backed by memory.", self.retained()),
            total("purged", "Free bytes without memory.", self.purged()),
            total("mapped", "Bytes of arenas and large mappings.", self.mapped()),
            total("highwater", "The peak of the memory that heaps have mapped.", self.highwater),
            total("waiting", "Bytes of freed blocks that wait for their owners.", self.waiting),
            total("arenas", "The number of arenas.", self.arenas()),
            total("heaps", "The number of heaps.", self.heaps),
        ]
    }

    fn used_classes(&self) -> impl Iterator<Item = &ClassInUse> {
        self.classes().iter().filter(|class| class.in_use.blocks > 0)
    }

    /// Writes the figures as one JSON object. If a limit is not set, its value is `null`.
    ///
    /// # Errors
    ///
    /// Returns an error if `out` returns one.
    pub fn write_json(&self, out: &mut impl Write, detail: Detail) -> fmt::Result {
        out.write_char('{')?;
        for Total { name, value, .. } in self.totals() {
            write!(out, "\"{name}\":{value},")?;
        }
        for (name, limit) in [("limit", self.limits.hard), ("soft_limit", self.limits.soft)] {
            match limit {
                usize::MAX => write!(out, "\"{name}\":null,")?,
                _ => write!(out, "\"{name}\":{limit},")?,
            }
        }
        out.write_str("\"kinds\":{")?;
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            write!(out, "{}\"{}\":{{", if at == 0 { "" } else { "," }, kind.name())?;
            write_json_fields(out, self.of_kind(kind))?;
            out.write_char('}')?;
        }
        out.write_char('}')?;
        if detail == Detail::Classes {
            out.write_str(",\"classes\":[")?;
            for (at, ClassInUse { block_size, kind, in_use, .. }) in self.used_classes().enumerate()
            {
                let comma = if at == 0 { "" } else { "," };
                let kind = kind.name();
                write!(out, "{comma}{{\"block_size\":{block_size},\"kind\":\"{kind}\",")?;
                write_json_fields(out, *in_use)?;
                out.write_char('}')?;
            }
            out.write_char(']')?;
        }
        out.write_char('}')
    }

    /// Writes the figures as gauges in the text format of Prometheus.
    ///
    /// All names begin with `obmalloc_`. The label `kind` or `block_size` says which blocks a
    /// number counts.
    ///
    /// # Errors
    ///
    /// Returns an error if `out` returns one.
    pub fn write_prometheus(&self, out: &mut impl Write, detail: Detail) -> fmt::Result {
        for Total { name, help, value } in self.totals() {
            let unit = if help.starts_with("The number") { "" } else { "_bytes" };
            gauge(out, format_args!("{name}{unit}"), help)?;
            writeln!(out, "obmalloc_{name}{unit} {value}")?;
        }
        let limits = [("limit", self.limits.hard), ("soft_limit", self.limits.soft)];
        for (name, limit) in limits.into_iter().filter(|(_, limit)| *limit != usize::MAX) {
            gauge(
                out,
                format_args!("{name}_bytes"),
                "The limit on the memory that heaps have mapped.",
            )?;
            writeln!(out, "obmalloc_{name}_bytes {limit}")?;
        }
        for (name, help, number) in PER_KIND {
            gauge(out, format_args!("kind_{name}"), help)?;
            for kind in Kind::ALL {
                let value = number(self.of_kind(kind));
                writeln!(out, "obmalloc_kind_{name}{{kind=\"{}\"}} {value}", kind.name())?;
            }
        }
        if detail == Detail::Classes {
            for (name, help, number) in PER_KIND {
                gauge(out, format_args!("class_{name}"), help)?;
                for ClassInUse { block_size, in_use, .. } in self.used_classes() {
                    let value = number(*in_use);
                    writeln!(out, "obmalloc_class_{name}{{block_size=\"{block_size}\"}} {value}")?;
                }
            }
        }
        Ok(())
    }
}

/// A number that is reported for each kind or class: its name, its meaning, and a function that
/// returns it.
type Number = (&'static str, &'static str, fn(InUse) -> usize);

const PER_KIND: [Number; 3] = [
    ("blocks", "The number of blocks in use.", |in_use| in_use.blocks),
    ("allocated_bytes", "Bytes of blocks in use.", |in_use| in_use.allocated),
    ("active_bytes", "Bytes of pools and mappings with a block in use.", |in_use| in_use.active),
];

fn gauge(out: &mut impl Write, name: fmt::Arguments<'_>, help: &str) -> fmt::Result {
    writeln!(out, "# HELP obmalloc_{name} {help}\n# TYPE obmalloc_{name} gauge")
}

fn write_json_fields(out: &mut impl Write, in_use: InUse) -> fmt::Result {
    let InUse { blocks, allocated, active, .. } = in_use;
    write!(out, "\"blocks\":{blocks},\"allocated\":{allocated},\"active\":{active}")
}

/// Writes tables. The alternate form (`{:#}`) also lists the size classes that have a block in use.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Total { name, help, value } in self.totals() {
            writeln!(f, "{name:<10} {value:>15}   {help}")?;
        }
        writeln!(f, "\n{:<10} {:>15} {:>15} {:>15}", "kind", "blocks", "allocated", "active")?;
        for kind in Kind::ALL {
            let InUse { blocks, allocated, active, .. } = self.of_kind(kind);
            writeln!(f, "{:<10} {blocks:>15} {allocated:>15} {active:>15}", kind.name())?;
        }
        if f.alternate() {
            writeln!(f, "\n{:<10} {:>15} {:>15} {:>15}", "class", "blocks", "allocated", "active")?;
            for ClassInUse { block_size, in_use, .. } in self.used_classes() {
                let InUse { blocks, allocated, active, .. } = in_use;
                writeln!(f, "{block_size:<10} {blocks:>15} {allocated:>15} {active:>15}")?;
            }
        }
        Ok(())
    }
}
