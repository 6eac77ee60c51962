//! SQL text as words, quoted names and symbols.

use std::borrow::Cow;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// A name in backticks, or a text in double quotes, which is a name under `ANSI_QUOTES`.
    Quoted(Cow<'a, str>),
    /// Any other character; a text in single quotes is its quote.
    Symbol(char),
    /// A quote without an end.
    Unclosed,
}

impl Token<'_> {
    /// Tells whether it is this word, which is written in capitals.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(word))
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Word(text) => text,
            Self::Quoted(text) => text,
            Self::Symbol(_) | Self::Unclosed => "",
        }
    }
}

/// The tokens of a text, without spaces and comments. What stands in `/*! … */` is no comment.
pub(super) struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Goes past spaces and comments.
    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(hint) = self.rest.strip_prefix("/*!").or_else(|| self.rest.strip_prefix("/*M!")) {
                self.rest = hint.trim_start_matches(|digit: char| digit.is_ascii_digit());
            } else if self.rest.starts_with("*/") {
                self.rest = &self.rest[2..];
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else if self.rest.starts_with('#') || is_comment(self.rest) {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else {
                return;
            }
        }
    }

    /// Takes what stands between quotes, of which the first has been taken; one that is doubled stands for itself.
    fn quoted(&mut self, quote: char) -> Token<'a> {
        let mut name = Cow::Borrowed("");
        loop {
            let Some((before, rest)) = self.rest.split_once(quote) else {
                self.rest = "";
                return Token::Unclosed;
            };
            name += before;
            self.rest = rest;
            if !self.rest.starts_with(quote) {
                return Token::Quoted(name);
            }
            name.to_mut().push(quote);
            self.rest = &self.rest[1..];
        }
    }

    /// Goes past a text in single quotes, with backslashes in it.
    fn string(&mut self) -> Token<'a> {
        let mut is_escaped = false;
        let end = self.rest.find(|c: char| {
            let is_end = c == '\'' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        });
        self.rest = end.map_or("", |end| &self.rest[end + 1..]);
        end.map_or(Token::Unclosed, |_| Token::Symbol('\''))
    }
}

/// Two dashes begin a comment where a blank or nothing follows.
fn is_comment(text: &str) -> bool {
    let after = text.strip_prefix("--").map(|rest| rest.chars().next());
    after.is_some_and(|next| next.is_none_or(|c| c.is_whitespace() || c.is_control()))
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        let length = self.rest.find(|c: char| !is_word(c)).unwrap_or(self.rest.len());
        if length > 0 {
            let (word, rest) = self.rest.split_at(length);
            self.rest = rest;
            return Some(Token::Word(word));
        }
        let mut chars = self.rest.chars();
        let first = chars.next()?;
        self.rest = chars.as_str();
        Some(match first {
            '`' | '"' => self.quoted(first),
            '\'' => self.string(),
            _ => Token::Symbol(first),
        })
    }
}
