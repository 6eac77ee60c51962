//! Colour for a terminal, or none.

/// Paints text with ANSI colours where they are wanted. Meaning never hangs on colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink {
    colored: bool,
}

impl Ink {
    #[must_use]
    pub const fn new(colored: bool) -> Self {
        Self { colored }
    }

    /// For files, pipes and tests.
    #[must_use]
    pub const fn plain() -> Self {
        Self::new(false)
    }

    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    #[must_use]
    pub fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colored && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
