//! Text within HTML and SVG.

/// Returns `text` with the characters of markup escaped.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
