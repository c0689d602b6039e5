//! Escapes text for HTML and SVG.

/// Escapes the characters `&`, `<` and `>`.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
