//! A statement as the server prints it, in pieces: quoted names and texts stay whole, whatever is in them.

use std::fmt;

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// A space stands before it. Between a function's name and its parenthesis none may be put.
    pub(super) is_apart: bool,
}

impl Token {
    pub(super) fn apart(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_apart: true }
    }

    /// Tells whether it is this word, in whatever case, or this mark. A quoted name is never a word.
    pub(super) fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
    }

    pub(super) fn is_name(&self) -> bool {
        self.text.starts_with('`')
    }

    pub(super) fn is_text(&self) -> bool {
        self.text.starts_with('\'')
    }

    pub(super) fn is_word(&self) -> bool {
        self.text.starts_with(|letter: char| letter.is_ascii_alphabetic())
    }
}

/// Cuts a statement into tokens. With `unwraps`, what stands in `/*!80023 … */` and `/*M!100301 … */` stands there plain: which
/// version reads which comment differs between the products.
pub(super) fn tokens(text: &str, unwraps: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        let is_apart = trimmed.len() < rest.len();
        let length = length(trimmed);
        if length == 0 {
            return tokens;
        }
        let (piece, after) = trimmed.split_at(length);
        rest = after;
        match conditional(piece).filter(|_| unwraps) {
            Some(body) => tokens.extend(self::tokens(&format!(" {body}"), unwraps)),
            None => tokens.push(Token { text: piece.to_owned(), is_apart }),
        }
    }
}

/// Returns how many bytes the first token has.
fn length(text: &str) -> usize {
    let is_word = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '$' | '.');
    let Some(first) = text.chars().next() else { return 0 };
    match first {
        '`' | '\'' | '"' => quoted(text, first),
        '/' if text.starts_with("/*") => text.find("*/").map_or(text.len(), |end| end + 2),
        _ if is_word(first) => text.find(|letter| !is_word(letter)).unwrap_or(text.len()),
        _ => first.len_utf8(),
    }
}

/// Returns the length of what stands in quotes; a doubled quote, and in texts one after a backslash, does not end it.
fn quoted(text: &str, mark: char) -> usize {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' && mark != '`' {
            letters.next();
        } else if letter == mark && letters.next_if(|(_, next)| *next == mark).is_none() {
            return at + mark.len_utf8();
        }
    }
    text.len()
}

/// Returns what a comment holds that only some servers read.
fn conditional(comment: &str) -> Option<&str> {
    let body = comment.strip_suffix("*/")?;
    let body = body.strip_prefix("/*!").or_else(|| body.strip_prefix("/*M!"))?;
    Some(body.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

/// Writes tokens as they stood.
pub(super) fn join(tokens: &[Token]) -> String {
    let mut text = String::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.is_apart && at > 0 {
            text.push(' ');
        }
        text.push_str(&token.text);
    }
    text
}

/// A `CREATE TABLE` statement in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    head: Vec<Token>,
    /// Columns, keys and checks, without the commas between.
    pub(super) items: Vec<Vec<Token>>,
    pub(super) options: Vec<Token>,
    /// From `PARTITION BY` on.
    pub(super) partitions: Vec<Token>,
}

impl Definition {
    /// Takes a statement apart; `None` where it is no list of definitions.
    pub(super) fn parse(create: &str, unwraps: bool) -> Option<Self> {
        let mut tokens = tokens(create, unwraps);
        let open = tokens.iter().position(|token| token.is("("))?;
        let close = closing(&tokens, open)?;
        let mut options = tokens.split_off(close + 1);
        tokens.pop();
        let body = tokens.split_off(open + 1);
        tokens.pop();
        let partition = options.iter().position(|token| token.is("PARTITION")).unwrap_or(options.len());
        let partitions = options.split_off(partition);
        Some(Self { head: tokens, items: split(body), options, partitions })
    }
}

/// Returns the place of the parenthesis that closes the one at `open`.
pub(super) fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" => depth += 1,
            ")" if depth == 1 => return Some(at),
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Splits a list at its own commas.
fn split(tokens: Vec<Token>) -> Vec<Vec<Token>> {
    let (mut items, mut depth) = (vec![Vec::new()], 0_usize);
    for token in tokens {
        match token.text.as_str() {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                items.push(Vec::new());
                continue;
            }
            _ => {}
        }
        if let Some(item) = items.last_mut() {
            item.push(token);
        }
    }
    items
}

/// One definition a line, as the servers print it.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = self.items.iter().map(|item| join(item)).collect();
        write!(f, "{} (\n  {}\n) {}", join(&self.head), items.join(",\n  "), join(&self.options))?;
        if self.partitions.is_empty() { Ok(()) } else { write!(f, "\n{}", join(&self.partitions)) }
    }
}
