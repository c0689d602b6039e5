//! The parts of a report, which is printed as text or written as an HTML page.

use std::fmt;

use super::{html::escaped, table::Table};

#[derive(Debug)]
pub(crate) enum Part {
    Heading(String),
    Line(String),
    List(Vec<String>),
    Table(String, Table),
    /// A caption and a table, which an HTML page shows only after a click.
    Folded(String, Table),
    /// An SVG image, which appears only in an HTML page.
    Chart(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heading(_) | Self::Chart(_) => Ok(()),
            Self::Line(line) => writeln!(f, "{line}"),
            Self::List(lines) => lines.iter().try_for_each(|line| writeln!(f, "  {line}")),
            Self::Table(caption, table) | Self::Folded(caption, table) => {
                writeln!(f, "\n{caption}\n{table}")
            }
        }
    }
}

impl Part {
    fn html(&self) -> String {
        match self {
            Self::Heading(text) => format!("<h2>{}</h2>\n", escaped(text)),
            Self::Line(line) => format!("<p>{}</p>\n", escaped(line)),
            Self::List(lines) => {
                let items = lines.iter().map(|line| format!("<li>{}</li>\n", escaped(line)));
                format!("<ul>\n{}</ul>\n", items.collect::<String>())
            }
            Self::Table(caption, table) => {
                format!("<h3>{}</h3>\n{}", escaped(caption), table.html())
            }
            Self::Folded(caption, table) => {
                let summary = format!("<summary>{}</summary>", escaped(caption));
                format!("<details>{summary}\n{}</details>\n", table.html())
            }
            Self::Chart(svg) => svg.clone(),
        }
    }
}

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 13px } svg { max-width: 100%; height: auto }
th, td { padding: 2px 8px; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left } td.loss { background: #fde0d0 }
details { margin: 0.5em 0 }
";

pub(crate) fn page(title: &str, parts: &[Part]) -> String {
    let title = escaped(title);
    let body: String = parts.iter().map(Part::html).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n{body}</body></html>\n"
    )
}
