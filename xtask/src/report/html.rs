//! Escapes text for HTML and SVG.

/// Returns `text` with the characters `&`, `<` and `>` escaped, so that it contains no markup.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
